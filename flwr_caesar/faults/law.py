"""The law that nothing learned is lost or applied twice, checked from outside.

The checker knows the content of every upload that was ever made and what the server
really applied. Beside each device's state it keeps a `Ghost`: what that state's own
history computed. A state that was copied or restored takes its ghost with it, so the
law can be stated for each history, and histories that fork may not both be applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.sync.device import Received
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.sync.state import DeviceState

Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Ghost:
    """What the history of one device state computed and knows to be applied."""

    computed: Vector
    spent_sum: Vector
    spent: frozenset[int] = frozenset()


@dataclass(eq=False)
class Holder:
    """A device as the checker sees it.

    `excused_at` is the newest phase in which an operator's act (a copied folder, a
    restored backup of either side) may have set it at odds with the server; -1 if none.
    """

    number: int
    node_id: int
    state: DeviceState | None = None
    ghost: Ghost | None = None
    excused_at: int = -1
    backups: list[tuple[DeviceState, Ghost]] = field(default_factory=list)


class Law:
    """Keeper of the truth, and of the violations found.

    Parameters
    ----------
    shapes : mapping of str to int
        Number of elements of each tensor.
    tolerance : float
        Largest difference of two values that are called equal, as a fraction of the
        largest element if that is above 1. 0, the default: equal to the last bit.
    """

    def __init__(self, shapes: Mapping[str, int], *, tolerance: float = 0.0) -> None:
        self._shapes = shapes
        self._tolerance = tolerance
        self._size = sum(shapes.values())
        self.mass: dict[tuple[str, int], Vector] = {}
        self._knew: dict[tuple[str, int], frozenset[int]] = {}
        self.truth: dict[str, set[int]] = {}
        self._ever: set[tuple[str, int]] = set()
        self._sums: dict[str, Vector] = {}
        self.total = self.zeros()
        self.violations: list[str] = []
        self.forfeited = 0
        self.server_restored = False
        self.where = "start"

    def zeros(self) -> Vector:
        """Return an update of nothing."""
        return np.zeros(self._size)

    def vector(self, arrays: Arrays) -> Vector:
        """Return named arrays as one vector, absent ones as zeros."""
        if not arrays:
            return self.zeros()
        parts = [arrays[n].ravel() for n in self._shapes]
        return np.concatenate(parts).astype(np.float64)

    def arrays(self, vector: Vector) -> dict[str, Vector]:
        """Return a vector as flat arrays by name."""
        ends = np.cumsum(list(self._shapes.values()))[:-1]
        return dict(zip(self._shapes, np.split(vector, ends), strict=True))

    def same(self, left: Vector, right: Vector) -> bool:
        """Whether two values are equal, to the tolerance."""
        if not self._tolerance:
            return np.array_equal(left, right)
        largest = max(1.0, float(np.abs(left).max()), float(np.abs(right).max()))
        # Written so that NaN is not the same as anything.
        return bool(np.abs(left - right).max() <= self._tolerance * largest)

    def made(
        self, state: DeviceState, ghost: Ghost, upload_id: int, values: Vector
    ) -> None:
        """Take note of an upload that a device made durable."""
        key = device_id(state.token), upload_id
        self.mass[key] = values
        waiting = {p.upload_id for p in state.pending} - {upload_id}
        self._knew[key] = ghost.spent | waiting

    def claimed(self, device: str, upload_id: int, values: Vector) -> None:
        """Take note of an upload that somebody else made up."""
        self.mass.setdefault((device, upload_id), values)
        self._knew.setdefault((device, upload_id), frozenset())

    def committed(self, uploads: Iterable[tuple[str, int, Vector]]) -> None:
        """Check and take note of what the server applied for good."""
        for device, upload_id, values in uploads:
            key = device, upload_id
            truth = self.truth.setdefault(device, set())
            if upload_id in truth:
                self.report(f"upload {upload_id:x} of {device} is applied twice")
            if not truth <= self._knew[key]:
                self.report(f"a fork of {device} is applied beside it")
            if not self.same(values, self.mass[key]):
                self.report(f"upload {upload_id:x} is applied with other content")
            truth.add(upload_id)
            self._ever.add(key)
            self._sums[device] = self._sums.get(device, self.zeros()) + values
            self.total = self.total + values

    def snapshot(self) -> dict[str, set[int]]:
        """Return what the server applied, for a backup."""
        return {device: set(ids) for device, ids in self.truth.items()}

    def restored(
        self, truth: dict[str, set[int]], holders: Iterable[Holder], phase: int
    ) -> None:
        """Take note that the server went back to a backup."""
        self.truth = {device: set(ids) for device, ids in truth.items()}
        self.server_restored = True
        self.total = self.zeros()
        self._sums = {}
        for device, ids in self.truth.items():
            total = sum((self.mass[device, i] for i in ids), self.zeros())
            self._sums[device] = total
            self.total = self.total + total
        for holder in holders:
            if self.doubtful(holder):
                holder.excused_at = phase

    def doubtful(self, holder: Holder) -> bool:
        """Whether the server applied what this device's state does not know of."""
        if holder.state is None or holder.ghost is None:
            return False
        truth = self.truth.get(device_id(holder.state.token), set())
        waiting = {p.upload_id for p in holder.state.pending}
        return not truth <= holder.ghost.spent | waiting

    def settled(
        self, holder: Holder, before: DeviceState, received: Received, *, stale: bool
    ) -> Ghost:
        """Check how a device judged its uploads, and return the ghost after it."""
        ghost = holder.ghost or Ghost(self.zeros(), self.zeros())
        device = device_id(before.token)
        truth = self.truth.get(device, set())
        gone = sum((self.mass[device, i] for i in received.applied), self.zeros())
        if received.state.token != before.token:
            known = {p.upload_id for p in before.pending} | set(before.settled)
            if truth <= known and not stale and not self.server_restored:
                self.report(f"{device} gives up without need")
            lost = ghost.spent_sum + gone + self.vector(received.forfeited)
            if not self.same(lost, ghost.computed):
                self.report(f"{device} gives up another amount than it had")
            self.forfeited += 1
            return Ghost(self.zeros(), self.zeros())
        if not stale and holder.excused_at < 0:
            if not truth.issuperset(received.applied):
                self.report(f"{device} takes an upload for applied that was not")
            if not truth.isdisjoint(received.returned):
                self.report(f"{device} takes back an upload that was applied")
        if not self._ever.issuperset((device, i) for i in received.applied):
            self.report(f"{device} takes an upload for applied that never was")
        return replace(
            ghost,
            spent=ghost.spent.union(received.applied),
            spent_sum=ghost.spent_sum + gone,
        )

    def check(self, holder: Holder) -> None:
        """Check the law for one device."""
        state, ghost = holder.state, holder.ghost
        if state is None or ghost is None:
            return
        device = device_id(state.token)
        residual = self.vector(state.residual)
        waiting = {p.upload_id: self.mass[device, p.upload_id] for p in state.pending}
        kept = ghost.spent_sum + residual + sum(waiting.values(), self.zeros())
        if not self.same(kept, ghost.computed):
            self.report(
                f"{device}: applied + waiting + residual is not what it computed"
            )
        if self.doubtful(holder):
            if holder.excused_at < 0:
                self.report(f"{device} does not know what the server applied of it")
            return
        truth = self.truth.get(device, set())
        rolled_back = ghost.spent - truth
        if rolled_back and not self.server_restored:
            self.report(f"{device} believes applied what the server does not have")
        total = self._sums.get(device, self.zeros()) + residual
        total = total + sum((self.mass[device, i] for i in rolled_back), self.zeros())
        for upload_id, values in waiting.items():
            if upload_id not in truth:
                total = total + values
        if not self.same(total, ghost.computed):
            self.report(f"{device}: applied + residual is not what it computed")

    def check_model(self, model: Vector) -> None:
        """Check that the server's model is the sum of what it applied."""
        if not self.same(model, self.total):
            self.report("the model is not the sum of the uploads applied")

    def report(self, what: str) -> None:
        """Take note of a violation."""
        self.violations.append(f"{self.where}: {what}")


def count_tokens(holders: Iterable[Holder]) -> Counter[bytes]:
    """Return how many devices hold a state with each token."""
    return Counter(h.state.token for h in holders if h.state is not None)
