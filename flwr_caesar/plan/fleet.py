"""What a server knows of its devices, to plan with."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from .columns import Ints, grown
from .errors import PlanError
from .estimates import COLUMNS, Estimates
from .population import MAX_COUNT, Population
from .staleness import NEVER

_HEAD = struct.Struct("<BQQH")
_FORMAT = 2


class Fleet:
    """Data, speed and last participation of every known device.

    A device is named by its id; inside it is a slot, a row of columns.

    Parameters
    ----------
    volume_weight : float
        What volume weighs against labels, see
        `flwr_caesar.plan.importance.importance`.
    estimates : Estimates, optional
        With priors of one's own.

    Attributes
    ----------
    population : Population
        Volumes and labels, by slot.
    estimates : Estimates
        Speed, by slot.
    """

    def __init__(
        self, *, volume_weight: float = 0.5, estimates: Estimates | None = None
    ) -> None:
        self.population = Population(volume_weight=volume_weight)
        self.estimates = estimates or Estimates()
        self._slots: dict[str, int] = {}
        self._last_rounds: Ints = np.zeros(0, np.int64)
        self._data: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        """Return the number of known devices."""
        return len(self._slots)

    def slots(self, devices: Sequence[str]) -> Ints:
        """Return the slots of devices, shape (n,).

        Those of which nothing is known all have the slot after the last.
        """
        unknown = len(self._slots)
        return np.array([self._slots.get(d, unknown) for d in devices], np.int64)

    def last_rounds(self, devices: Sequence[str]) -> Ints:
        """Return the round in which each device took part last; `NEVER` if none."""
        rows = self.slots(devices)
        found = np.full(len(rows), NEVER, np.int64)
        known = rows < len(self._slots)
        found[known] = self._last_rounds[rows[known]]
        return found

    def __contains__(self, device: object) -> bool:
        """Whether a device took part before."""
        return device in self._slots

    def learn(
        self,
        devices: Sequence[str],
        server_round: int,
        *,
        volumes: Sequence[int],
        labels: Sequence[tuple[int, ...]],
    ) -> Ints:
        """Learn that devices took part in a round, and what they say of their data.

        Parameters
        ----------
        devices : sequence of str
            Ids, each once.
        server_round : int
            The round.
        volumes : sequence of int
            Examples that each holds.
        labels : sequence of tuple of int
            Counts of each label; empty if a device was not asked or declined. What is
            out of range is passed over.

        Returns
        -------
        ndarray of int64, shape (n,)
            Their slots.
        """
        for device in devices:
            self._slots.setdefault(device, len(self._slots))
        rows = self.slots(devices)
        self._reserve(len(self._slots))
        self._last_rounds[rows] = server_round
        changed: dict[int, tuple[int, tuple[int, ...]]] = {}
        for row, volume, told in zip(rows.tolist(), volumes, labels, strict=True):
            before = self._data.get(row, (-1, ()))
            fits = any(told) and max(told) <= MAX_COUNT
            now = min(max(int(volume), 0), MAX_COUNT), told if fits else before[1]
            if now != before:
                changed[row] = now
        by_classes: dict[int, list[int]] = {}
        for row, (_, told) in changed.items():
            by_classes.setdefault(len(told), []).append(row)
        for group in by_classes.values():
            self.population.update(
                group,
                [changed[row][0] for row in group],
                np.array([changed[row][1] for row in group], np.int64),
            )
        self._data |= changed
        return rows

    def pack(self, device: str) -> bytes:
        """Return what is known of a device, to be stored.

        Format (2), last round and volume as uint64, 20 estimates as float32, the
        number of labels as uint16 and their counts as uint32; little-endian.
        """
        row = self._slots[device]
        volume, labels = self._data[row]
        last = int(self._last_rounds[row])
        head = _HEAD.pack(_FORMAT, last, volume, len(labels))
        rows: bytes = self.estimates.rows([row]).astype("<f4").tobytes()
        return head + rows + np.array(labels, "<u4").tobytes()

    def restore(self, facts: Mapping[str, bytes]) -> None:
        """Take back what `pack` returned, of many devices.

        Raises
        ------
        PlanError
            If the bytes of one are malformed.
        """
        devices, rounds, volumes, estimates = [], [], [], []
        labels: list[tuple[int, ...]] = []
        for device, data in facts.items():
            try:
                version, last, volume, classes = _HEAD.unpack_from(data)
                start = _HEAD.size + 4 * COLUMNS
                if version != _FORMAT or len(data) != start + 4 * classes:
                    raise PlanError(f"what is known of {device} is malformed")
            except struct.error as err:
                raise PlanError(f"what is known of {device} is malformed") from err
            devices.append(device)
            rounds.append(min(last, 1 << 62))
            volumes.append(volume)
            estimates.append(np.frombuffer(data, "<f4", COLUMNS, _HEAD.size))
            labels.append(tuple(np.frombuffer(data, "<u4", classes, start).tolist()))
        if not devices:
            return
        rows = self.learn(devices, 0, volumes=volumes, labels=labels)
        self._last_rounds[rows] = rounds
        self.estimates.restore(rows, np.stack(estimates))

    def _reserve(self, needed: int) -> None:
        old = len(self._last_rounds)
        capacity = grown(old, needed)
        if capacity > old:
            more = np.full(capacity - old, NEVER, np.int64)
            self._last_rounds = np.append(self._last_rounds, more)
