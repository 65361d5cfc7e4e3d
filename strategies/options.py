"""The options that every strategy here takes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, TypedDict

from flwr_caesar.frozen import frozen
from flwr_caesar.records import PhaseProgress, RoundRecord
from flwr_caesar.sync.sources import Sources

from .guard import Guard

if TYPE_CHECKING:
    from flwr_caesar.plan import Presence, VirtualClock


class WrapperOptions(TypedDict, total=False):
    """Options that every strategy here takes.

    Parameters
    ----------
    on_record : callable or sequence of callable
        Called with the RoundRecord of each phase; those of `flwr_caesar.export` also
        with the accuracy and the loss of each round.
    on_progress : callable
        Called with the PhaseProgress of a phase when it opens, while replies arrive, at
        most once a second, and when it closes.
    deadline : float
        Seconds after which a phase closes. What arrives later is not applied.
    quorum : float
        Fraction of replies, in ``(0, 1]``, at which a phase closes.
    clock : VirtualClock
        Charge each device for download, training and upload as if it were one of the
        clock's: for simulations. The deadline then counts virtual seconds, and a
        quorum cannot be given.
    presence : Presence
        Which devices can be reached in a round: for simulations. One that the inner
        strategy samples while it is away is not asked.
    checkpoint : path
        Folder for the model, the inner strategy's state and the ledger of devices,
        written after each round. A strategy that is given a folder with a checkpoint
        goes on from it.
    max_residual_age : int
        Give up the residual of a device that was not asked for more than this many
        phases (a round is two, with evaluation). 0, the default, keeps it for ever.
    max_failed_rounds : int
        End the run with `TrainingFailedError` after so many rounds in a row in which
        devices replied and no reply could be used; in the first round of a history,
        after one. 3 by default; 0: never.
    guards : bool or Guard
        What one device may do to the model. True, the default, is ``Guard()``; False
        lets every finite reply count as it is, for exact comparisons.
    sources : Sources
        Where the date and random ids come from, for runs that are to repeat. By default
        the machine's.
    """

    on_record: Callable[[RoundRecord], None] | Sequence[Callable[[RoundRecord], None]]
    on_progress: Callable[[PhaseProgress], None]
    deadline: float
    quorum: float
    clock: VirtualClock
    presence: Presence
    checkpoint: str | PathLike[str]
    max_residual_age: int
    max_failed_rounds: int
    guards: bool | Guard
    sources: Sources


@frozen
class Options:
    """`WrapperOptions`, checked; see there."""

    _: KW_ONLY
    on_record: (
        Callable[[RoundRecord], None] | Sequence[Callable[[RoundRecord], None]] | None
    ) = None
    on_progress: Callable[[PhaseProgress], None] | None = None
    deadline: float | None = None
    quorum: float | None = None
    clock: VirtualClock | None = None
    presence: Presence | None = None
    checkpoint: str | PathLike[str] | None = None
    max_residual_age: int = 0
    max_failed_rounds: int = 3
    guards: bool | Guard = True
    sources: Sources = field(default_factory=Sources)

    def __post_init__(self) -> None:
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds, not {self.deadline}")
        if self.quorum is not None and not 0 < self.quorum <= 1:
            raise ValueError(f"quorum must be in (0, 1], not {self.quorum}")
        if self.clock is not None and self.quorum is not None:
            raise ValueError(
                "quorum closes a phase by the real order of replies; leave it out with "
                "a virtual clock, or give a deadline"
            )
        for name in ("max_residual_age", "max_failed_rounds"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} must be at least 0, not {getattr(self, name)}"
                )

    @property
    def sinks(self) -> tuple[Callable[[RoundRecord], None], ...]:
        """Who is told of each phase."""
        if self.on_record is None:
            return ()
        return (self.on_record,) if callable(self.on_record) else (*self.on_record,)

    @property
    def guard(self) -> Guard | None:
        """The guards in force; `None` if they are off."""
        if isinstance(self.guards, Guard):
            return self.guards
        return Guard() if self.guards else None

    @classmethod
    def of(
        cls, options: Mapping[str, Any], *, owner: type, own: Mapping[str, Any]
    ) -> Options:
        """Return the options that a constructor was given.

        Parameters
        ----------
        options : mapping
            Keyword arguments that are not the constructor's own.
        owner : type
            The class, for the error.
        own : mapping
            Its constructor's own parameters, for the error.

        Raises
        ------
        TypeError
            If one of them does not exist.
        ValueError
            If one is out of range.
        """
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, [*own, *known], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(
                    f"{owner.__name__} got an unexpected keyword argument "
                    f"{name!r}{hint}"
                )
        return cls(**options)
