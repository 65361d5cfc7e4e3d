"""Which strategies the fault harness can run, and with which settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar.methods import get_method, list_methods
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies import CompressedStrategy, ServerMethod
from flwr_caesar.sync.sources import Sources

from .app import SIZES
from .listening import TakesEveryReply

_MEMORY = "upload_memory"
# Of most devices, so that some are forgotten and send without prediction.
_MEMORY_BYTES = 6 * sum(SIZES.values())


@dataclass(frozen=True)
class FaultCase:
    """A strategy as the harness runs it.

    Parameters
    ----------
    strategy : str
        Name of a method; see `flwr_caesar.methods.get_method`.
    settings : mapping
        Keyword arguments of its constructor, suited to a small model.
    factory : callable, optional
        What is called instead of the method's constructor, with the same arguments.
    """

    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    factory: Callable[..., Strategy] | None = None

    def method(self) -> ServerMethod:
        """Return the method, to read off it what the laws need to know.

        Raises
        ------
        ValueError
            If there is none, as plain arrays are sent.
        """
        method = self._make(FedAvg()).method
        if method is None:
            raise ValueError(
                f"{self.strategy} sends plain arrays: there are no laws to keep"
            )
        return method

    def takes_every_reply(self) -> bool:
        """Whether it can wrap a strategy that is given each reply, not a mean."""
        try:
            self._make(TakesEveryReply())
        except ValueError:
            return False
        return True

    def build(
        self,
        inner: Strategy,
        *,
        devices: int,
        checkpoint: Path,
        on_record: Callable[[RoundRecord], None],
        sources: Sources,
    ) -> CompressedStrategy:
        """Build the strategy, as a server does that starts.

        Parameters
        ----------
        inner : Strategy
            Flower's.
        devices : int
            How many there are; a server that remembers uploads has room for those of
            most of them.
        checkpoint : Path
            The server's durable folder.
        on_record : callable
            Called after each phase.
        sources : Sources
            Where it takes the date and its ids from.
        """
        room = {}
        if self._remembers and _MEMORY not in self.settings:
            room = {_MEMORY: _MEMORY_BYTES * devices}
        return self._make(
            inner,
            checkpoint=checkpoint,
            on_record=on_record,
            sources=sources,
            max_failed_rounds=0,
            **room,
        )

    @property
    def _remembers(self) -> bool:
        """Whether its upload codec has a memory on both sides, if not asked."""
        factory, _ = self._constructor()
        found = inspect.signature(factory).parameters.get(_MEMORY)
        return found is not None and found.default != 0

    def _constructor(self) -> tuple[Callable[..., Strategy], Mapping[str, Any]]:
        if self.factory is not None:
            return self.factory, self.settings
        method = get_method(self.strategy)
        return method.load_strategy(), {**method.settings, **self.settings}

    def _make(self, inner: Strategy, **options: Any) -> CompressedStrategy:
        factory, settings = self._constructor()
        strategy = factory(inner, **settings, **options)
        if not isinstance(strategy, CompressedStrategy):
            raise TypeError(
                f"{self.strategy} makes a {type(strategy).__name__}, not a "
                "CompressedStrategy"
            )
        return strategy


def all_cases() -> dict[str, FaultCase]:
    """Return the cases of all installed methods by name, see `MethodSpec.cases`.

    A method that does not load has none.
    """
    cases: dict[str, FaultCase] = {}
    for name in list_methods():
        try:
            method = get_method(name)
        except LookupError:
            continue
        for case, settings in method.cases.items():
            full = name if case == name else f"{name}_{case}"
            cases.setdefault(full, FaultCase(name, settings))
    return cases
