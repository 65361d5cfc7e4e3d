"""Whose reply it is that a strategy cannot work with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Protocol

from flwr.serverapp.strategy import Strategy

from flwr_caesar.flower import log

from .inner import snapshot
from .phase import Phase

_MOST = 8


class Refuse(Protocol):
    """Takes the reply of a node out of a phase."""

    def __call__(self, node_id: int, reason: str, *, is_fault: bool = True) -> None:
        """Say which, why, and whether its device is to blame."""


def nobody(node_id: int, reason: str, *, is_fault: bool = True) -> None:
    """Refuse nobody: what is tried is no verdict."""


def drop_culprits(
    strategy: Strategy,
    phase: Phase,
    error: Exception,
    aggregate: Callable[[Phase], object],
    refuse: Refuse,
    has_worked: Collection[str],
) -> None:
    """Refuse the replies with which a strategy raises an error.

    If it raises one whatever the replies, they are not the cause, so the error is
    raised; but all are refused, without blame, if the strategy has worked before.

    Parameters
    ----------
    strategy : Strategy
        Put back as it was after each trial.
    phase : Phase
        Of which some replies are refused.
    error : Exception
        What the strategy raised.
    aggregate : callable
        Called with a phase that has some of the replies.
    refuse : callable
        Takes a reply out of the phase.
    has_worked : collection of str
        Kinds of phases in which the strategy has worked.
    """
    why = f"{type(strategy).__name__} raises {type(error).__name__}: {error}"
    log(WARNING, "%s. Looking for the replies it is due to", why, exc_info=error)

    def works(nodes: Sequence[int]) -> bool:
        replies = {node_id: replace(phase.replies[node_id]) for node_id in nodes}
        put_back = snapshot(strategy)
        try:
            aggregate(replace(phase, replies=replies))
        except Exception:
            return False
        finally:
            put_back()
        return True

    found = culprits(list(phase.replies), works)
    if not found and phase.kind not in has_worked:
        raise error
    for node_id in found or list(phase.replies):
        refuse(node_id, f"with its reply, {why}", is_fault=bool(found))


def culprits(nodes: Sequence[int], works: Callable[[Sequence[int]], bool]) -> list[int]:
    """Return the nodes without whose replies those of the others work.

    Replies are looked for that turn a beginning of the list that works into one that
    does not, by bisection: about ``log2(len(nodes))`` trials for each culprit.

    Parameters
    ----------
    nodes : sequence of int
        Whose replies do not work together.
    works : callable
        Whether the replies of some of them do; called with one at the least.

    Returns
    -------
    list of int
        Empty if that cannot be told: nothing works, so it is not the replies; or all
        replies are such.
    """
    left, blamed, has_worked = list(nodes), list[int](), False
    while True:
        good, bad = 0, len(left)
        while bad - good > 1:
            middle = (good + bad) // 2
            if works(left[:middle]):
                good, has_worked = middle, True
            else:
                bad = middle
        blamed.append(left.pop(bad - 1))
        if not left or (len(blamed) == _MOST and not has_worked):
            return []
        if works(left):
            break
    # A strategy that needs a few replies fails with the first one, whoever sent it.
    return [node_id for node_id in blamed if not works([*left, node_id])]
