"""What one device may do to the model: its share of the mean, its update's length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flwr_caesar.frozen import frozen

MAX_WEIGHT = 1e15
"""Largest weight of a reply that is believed at all: no device has more examples."""

_FEWEST = 3
_REMEMBERED = 64


@frozen
class Guard:
    """Limits on one device, wide enough that honest devices do not meet them.

    Parameters
    ----------
    max_share : float
        Most of a mean of three or more that one device makes up, in ``(0, 1]``. The
        weight of a device that claims more is lowered to this share.
    max_norm : float
        Longest update, above 1, in multiples of the median length: that of this round's
        and recent updates, or that of this round's alone if it is larger. A longer one
        is refused. Of no effect before three lengths are known. Tensors that are not
        floating point, which count examples and the like, may change by the square of
        it in multiples of their own median.
    max_refusals : int
        A device whose replies were refused so many times in a row is left out.
        0: never.
    rounds_out : int
        For how many rounds it is left out; twice as many each further time.
    """

    max_share: float = 0.75
    max_norm: float = 10.0
    max_refusals: int = 3
    rounds_out: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share must be in (0, 1], not {self.max_share}")
        if not self.max_norm > 1:
            raise ValueError(f"max_norm must be above 1, not {self.max_norm}")
        if self.max_refusals < 0:
            raise ValueError(
                f"max_refusals must be at least 0, not {self.max_refusals}"
            )
        if self.rounds_out < 1:
            raise ValueError(f"rounds_out must be at least 1, not {self.rounds_out}")

    @property
    def max_count(self) -> float:
        """As `max_norm`, of what is not floating point, such as counters of batches.

        They grow with a device's data, which differs by more than updates do.
        """
        return self.max_norm**2

    def too_long(
        self,
        lengths: Mapping[int, float],
        recent: tuple[float, ...],
        *,
        most: float | None = None,
    ) -> dict[int, float]:
        """Return the nodes whose updates are too long, and by what factor.

        Parameters
        ----------
        lengths : mapping of int to float
            Length of each node's update in this phase.
        recent : tuple of float
            Lengths of updates that were used before.
        most : float, optional
            In place of `max_norm`.
        """
        most = self.max_norm if most is None else most
        now = [length for length in lengths.values() if length > 0]
        known = [*(length for length in recent if length > 0), *now]
        if len(known) < _FEWEST:
            return {}
        median = _median(known)
        if len(now) >= _FEWEST:  # a round may ask all devices for more than the last
            median = max(median, _median(now))
        return {
            node_id: length / median
            for node_id, length in lengths.items()
            if not length <= most * median
        }

    def longest(self, recent: tuple[float, ...]) -> float:
        """Return the longest update that is believed; 0 if too few are known.

        Parameters
        ----------
        recent : tuple of float
            Lengths of updates that were used before.
        """
        known = [length for length in recent if length > 0]
        if len(known) < _FEWEST:
            return 0.0
        return self.max_norm * _median(known)

    def limited_weights(self, weights: Mapping[int, float]) -> dict[int, float]:
        """Return the weights, of which one may be lowered to the largest share."""
        limited = dict(weights)
        if len(limited) < _FEWEST or self.max_share == 1:
            return limited
        heaviest = max(limited, key=lambda node_id: limited[node_id])
        others = math.fsum(w for n, w in limited.items() if n != heaviest)
        most = others * self.max_share / (1 - self.max_share)
        if others > 0 and limited[heaviest] > most:
            limited[heaviest] = most
        return limited


def _median(lengths: Sequence[float]) -> float:
    """Return the median; of an even number, the geometric mean of the middle two.

    Their mean would be half of the longer one, however long, and exactly half of the
    devices could be as long as they like.
    """
    low, high = statistics.median_low(lengths), statistics.median_high(lengths)
    return low if low == high else math.sqrt(low) * math.sqrt(high)


def remember(
    recent: tuple[float, ...], lengths: Mapping[int, float]
) -> tuple[float, ...]:
    """Return the newest lengths of updates that were used."""
    return (*recent, *lengths.values())[-_REMEMBERED:]


@frozen
class _Record:
    refused: int = 0
    times_out: int = 0
    until: int = 0


class Bench:
    """Which nodes are left out, as their replies were refused again and again.

    Parameters
    ----------
    guard : Guard, optional
        `None`: none ever is.
    """

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._records: dict[int, _Record] = {}

    def is_out(self, node_id: int, server_round: int) -> bool:
        """Whether a node is not to be asked in a round."""
        return self._records.get(node_id, _Record()).until >= server_round

    def note(self, node_id: int, server_round: int, *, refused: bool) -> bool:
        """Learn what became of a node's reply; return whether it is left out now."""
        guard = self._guard
        if guard is None or not guard.max_refusals:
            return False
        if not refused:
            self._records.pop(node_id, None)
            return False
        record = self._records.get(node_id, _Record())
        record = replace(record, refused=record.refused + 1)
        is_out = record.refused >= guard.max_refusals
        if is_out:
            rounds = guard.rounds_out << min(record.times_out, 10)
            record = _Record(0, record.times_out + 1, server_round + rounds)
        self._records[node_id] = record
        return is_out
