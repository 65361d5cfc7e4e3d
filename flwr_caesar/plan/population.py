"""What is known of the data of all devices, ready to rank a round's among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, Ints, grown, slot_numbers
from .errors import PlanError
from .importance import importance, rank_among, rank_among_more, upload_ratio

MAX_COUNT = (1 << 32) - 1

HALF_VOLUME = 256
"""Samples that make half of the most that a volume counts for."""

_UNKNOWN = -1


class Population:
    """Volumes and label histograms of all known devices, one column each.

    A device's score depends on what it says of itself alone, and on how many labels
    most devices have: ``lam * n / (n + 256) + (1 - lam) * exp(-KL(Phi, uniform))``. So
    what one says changes the rank of another by one at the most. A histogram of another
    number of labels than most have is taken for a declined one.

    A device is a slot: a small integer that the caller gives it once, counted from 0.
    Memory is about 24 bytes a slot. Ranking is done once after a change, for any number
    of lookups.

    Parameters
    ----------
    volume_weight : float
        ``lam`` of `flwr_caesar.plan.importance.importance`.

    Raises
    ------
    PlanError
        If `volume_weight` is no fraction.
    """

    def __init__(self, *, volume_weight: float = 0.5) -> None:
        if not 0 <= volume_weight <= 1:
            raise PlanError(
                f"volume_weight is {volume_weight}; give a fraction, 0 to 1"
            )
        self._weight = volume_weight
        self._volumes: Ints = np.zeros(0, np.int64)
        self._classes: Ints = np.zeros(0, np.int64)
        self._entropies: Floats = np.zeros(0)
        self._ranking: tuple[Floats, Floats] | None = None

    def __len__(self) -> int:
        """Return the number of known devices."""
        return int((self._volumes != _UNKNOWN).sum())

    @property
    def classes(self) -> int:
        """How many labels most devices have that revealed theirs; 0 if none did."""
        lengths, counts = np.unique(
            self._classes[self._classes > 0], return_counts=True
        )
        return int(lengths[counts.argmax()]) if len(lengths) else 0

    def update(
        self, slots: ArrayLike, volumes: ArrayLike, histograms: ArrayLike | None = None
    ) -> None:
        """Learn the data of some devices, or replace what was known of them.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        volumes : array of int, shape (n,)
            Samples each holds, 0 to 2^32 - 1.
        histograms : array of int, shape (n, classes), optional
            Samples of each label, 0 to 2^32 - 1. A row of zeros is a device that
            declined; `None`: all of them did.

        Raises
        ------
        PlanError
            If a value is out of range. Nothing is changed then.
        """
        rows = slot_numbers(slots, distinct=True)
        n = _counts("volumes", volumes, (len(rows),))
        if histograms is None:
            histograms = np.zeros((len(rows), 1), np.int64)
        counts = _counts("histograms", histograms, (len(rows), None))
        if not len(rows):
            return
        self._reserve(int(rows.max()) + 1)
        self._volumes[rows] = n
        self._classes[rows] = np.where(counts.any(axis=1), counts.shape[1], 0)
        self._entropies[rows] = _entropies(counts)
        self._ranking = None

    def scores(self, slots: ArrayLike) -> Floats:
        """Return the importance of devices, shape (n,); NaN for unknown ones."""
        rows = slot_numbers(slots)
        found = np.full(len(rows), np.nan)
        inside = rows < len(self._volumes)
        found[inside] = self._ranked()[0][rows[inside]]
        return found

    def ranks(self, slots: ArrayLike) -> Floats:
        """Return the ranks of devices among all known ones, 1 the most important.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices. One that is not known has the middle rank ``(N + 1) / 2``, the mean
            of all, as nothing is known of its data before its first reply.

        Returns
        -------
        ndarray of float64, shape (n,)
            Devices of one score share the mean of their places.
        """
        scores = self.scores(slots)
        _, ascending = self._ranked()
        known = ~np.isnan(scores)
        ranks = np.full(len(scores), (len(ascending) + 1) / 2)
        ranks[known] = rank_among(scores[known], ascending)
        return ranks

    def upload_ratio(
        self,
        slots: ArrayLike,
        *,
        theta_min: float = 0.1,
        theta_max: float = 0.6,
        federation: int = 0,
    ) -> Floats:
        """Return the upload ratios of devices by their ranks.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices; a device that is not known gets the ratio of the middle rank.
        theta_min, theta_max : float
            Smallest and largest ratio, 0 to 1.
        federation : int
            Devices that there are, known or not; those known, if they are more. The
            unknown ones are taken for likely to rank anywhere among the known.

        Returns
        -------
        ndarray of float64, shape (n,)
            Fraction of the update's elements that are dropped; half way between the
            two bounds for all while nobody is known.

        Raises
        ------
        PlanError
            If the ratios are no range of fractions.
        """
        ranks = self.ranks(slots)
        known = len(self._ranked()[1])
        count = max(known, federation)
        if not known:
            ranks, count = np.ones(len(ranks)), 2
        elif count > known:
            ranks = rank_among_more(ranks, known, count)
        return upload_ratio(ranks, count, theta_min=theta_min, theta_max=theta_max)

    def _reserve(self, needed: int) -> None:
        old = len(self._volumes)
        more = grown(old, needed) - old
        if more > 0:
            self._volumes = np.append(self._volumes, np.full(more, _UNKNOWN))
            self._classes = np.append(self._classes, np.zeros(more, np.int64))
            self._entropies = np.append(self._entropies, np.zeros(more))

    def _ranked(self) -> tuple[Floats, Floats]:
        """Scores by slot, NaN where unknown; and all known ones, ascending."""
        if self._ranking is None:
            known = self._volumes != _UNKNOWN
            volumes = np.where(known, self._volumes, 0)
            scores = importance(
                volumes / (volumes + HALF_VOLUME),
                self._divergences(),
                max_volume=1.0,
                volume_weight=self._weight,
            )
            scores[~known] = np.nan
            self._ranking = scores, np.sort(scores[known])
        return self._ranking

    def _divergences(self) -> Floats:
        classes = self.classes
        fits = (self._classes == classes) & (self._classes > 0)
        divergence = np.log(max(classes, 1)) - self._entropies
        return np.where(fits, np.maximum(divergence, 0.0), np.nan)


def _counts(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> Ints:
    column = np.asarray(values)
    if column.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, column.shape, strict=True)
    ):
        raise PlanError(f"{name} must have one row for each slot")
    if column.size == 0:
        return np.zeros(column.shape, np.int64)
    if (
        column.dtype.kind not in "iu"
        or not 0 <= column.min() <= column.max() <= MAX_COUNT
    ):
        raise PlanError(f"{name} must be integers, 0 to 2^32 - 1")
    return column.astype(np.int64)


def _entropies(counts: Ints) -> Floats:
    """Return the entropy of each row in nats, shape (n,); 0 for a row of zeros."""
    sizes = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    own = counts / sizes
    logs = np.log(np.where(own > 0, own, 1.0))
    return np.asarray(-(own * logs).sum(axis=1), np.float64)
