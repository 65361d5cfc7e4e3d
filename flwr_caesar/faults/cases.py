"""Which strategies the fault harness can run, and with which settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import Strategy

from flwr_caesar.methods import get_method, list_methods
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies import CompressedStrategy
from flwr_caesar.sync.sources import Sources

from .app import LR, SIZES

_PARAMETERS = sum(SIZES.values())
# Of most devices, so that some are forgotten and send without prediction.
_MEMORY_BYTES = 6 * _PARAMETERS
_CONTROL = {"lr": LR, "p": 0.25, "density": 0.3, "exact_below": 64}


@dataclass(frozen=True)
class FaultCase:
    """A strategy as the harness runs it.

    Parameters
    ----------
    strategy : str
        Name of a method; see `flwr_caesar.methods.get_method`.
    settings : mapping
        Keyword arguments of its class, suited to a small model.
    uniform : bool, optional
        Whether it gives every reply the same weight; `None`: as its method says.
    remembers : bool
        Whether its upload codec has a memory on both sides.
    republishes : bool, optional
        Whether the model it goes on with is not quite the inner strategy's; `None`: if
        its method has a `finish` of its own.
    factory : callable, optional
        What is called instead of the method's constructor, with the same arguments.
    """

    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    uniform: bool | None = False
    remembers: bool = False
    republishes: bool | None = False
    factory: Callable[..., Strategy] | None = None

    @classmethod
    def of(
        cls,
        strategy: str,
        settings: Mapping[str, Any],
        factory: Callable[..., Strategy] | None = None,
    ) -> FaultCase:
        """Return a case of a method of which nothing else is known.

        What the laws need to know is read off the method that is built.
        """
        return cls(strategy, settings, uniform=None, republishes=None, factory=factory)

    @property
    def has_control(self) -> bool:
        """Whether devices keep control variates."""
        return self.strategy == "fedcomloc"

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
            How many there are; the server remembers the uploads of most of them.
        checkpoint : Path
            The server's durable folder.
        on_record : callable
            Called after each phase.
        sources : Sources
            Where it takes the date and its ids from.
        """
        factory, settings = self.factory, dict(self.settings)
        if factory is None:
            method = get_method(self.strategy)
            factory = method.load_strategy()
            settings = {**method.settings, **settings}
        if self.remembers:
            settings["upload_memory"] = _MEMORY_BYTES * devices
        strategy = factory(
            inner,
            checkpoint=checkpoint,
            on_record=on_record,
            max_failed_rounds=0,
            sources=sources,
            **settings,
        )
        if not isinstance(strategy, CompressedStrategy):
            raise TypeError(
                f"{self.strategy} makes a {type(strategy).__name__}, not a "
                "CompressedStrategy"
            )
        return strategy


# Ours: what each of them is known to do is told, so that more can be checked.
CASES = {
    "caesar": FaultCase("caesar", {"first_bits": 0, "shared_start": True}),
    "caesar_paper": FaultCase(
        "caesar_paper", {"codec": "paper", "exact_below": 64}, uniform=True
    ),
    "fedcomloc": FaultCase("fedcomloc", _CONTROL, uniform=True),
    "fedcomloc_global": FaultCase(
        "fedcomloc", {**_CONTROL, "variant": "global"}, uniform=True, republishes=True
    ),
    "fedcomloc_local": FaultCase(
        "fedcomloc", {**_CONTROL, "variant": "local"}, uniform=True
    ),
    "pruning": FaultCase("pruning", {"prune_rate": 0.5}, republishes=True),
    "error_bounded": FaultCase(
        "error_bounded", {"rel": 0.01, "exact_below": 64}, remembers=True
    ),
    "error_bounded_feedback": FaultCase(
        "error_bounded",
        {"rel": 0.05, "exact_below": 64, "error_feedback": True},
        remembers=True,
    ),
    "correlation_aware": FaultCase(
        "correlation_aware", {"density": 0.05, "history": True}, remembers=True
    ),
    "topk": FaultCase("topk", {"density": 0.1}),
    "topk_lattice": FaultCase("topk", {"density": 0.1, "downlink": "lattice"}),
}


def all_cases() -> dict[str, FaultCase]:
    """Return our cases, and those of installed methods.

    A case ``C`` of a method ``M`` is named ``M_C``; ``M`` if it has the method's name.
    A method that does not load has none.
    """
    cases = dict(CASES)
    for name in list_methods():
        try:
            method = get_method(name)
        except LookupError:
            continue
        for case, settings in method.cases.items():
            full = name if case == name else f"{name}_{case}"
            cases.setdefault(full, FaultCase.of(name, settings))
    return cases
