"""Weights & Biases: ``pip install 'flwr-caesar[wandb]'``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from .sink import Sink


class WandB(Sink):
    """Writes figures and settings to Weights & Biases, or to a folder.

    Parameters
    ----------
    project : str
        Where the run is filed.
    mode : {"online", "offline"}, optional
        ``"offline"`` writes to `folder` and needs neither a key nor a network; ``wandb
        sync FOLDER/wandb/offline-run-…`` uploads it later. By default W&B's own, the
        variable ``WANDB_MODE``.
    folder : path, optional
        Where W&B keeps its files; by default where the process was started.
    name : str, optional
        The run's; by default W&B makes one up.
    settings : mapping, optional
        What the run was set to; shown beside it.

    Attributes
    ----------
    run : wandb.Run
        To log more to.

    Raises
    ------
    ImportError
        Without wandb.
    wandb.errors.Error
        If the run cannot be begun, such as online without a key.
    """

    def __init__(
        self,
        project: str = "flwr-caesar",
        *,
        mode: Literal["online", "offline"] | None = None,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import wandb

        self.run: Any = wandb.init(
            project=project,
            mode=mode,
            dir=None if folder is None else os.fspath(folder),
            name=name,
            config=dict(settings or {}),
        )
        # W&B's own step counts calls, of which a round has several.
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        """See `Sink.write`."""
        self.run.log({**figures, "round": server_round})

    def end(self, *, failed: bool) -> None:
        """See `Sink.end`."""
        self.run.finish(exit_code=1 if failed else 0)
