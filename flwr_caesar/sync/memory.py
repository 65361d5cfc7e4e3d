"""A ledger in memory, for simulation and tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .ledger_api import DeviceRow, Head


@dataclass
class MemoryLedger:
    """A `LedgerStore` that lives as long as its process.

    Parameters
    ----------
    checkpoint : object
        What was committed with the newest model.
    """

    checkpoint: Any = None
    _head: Head | None = None
    _rows: dict[str, DeviceRow] = field(default_factory=dict)
    _nodes: dict[int, str] = field(default_factory=dict)

    def copy(self) -> MemoryLedger:
        """Return a backup: later commits to either do not change the other."""
        return MemoryLedger(
            self.checkpoint, self._head, dict(self._rows), dict(self._nodes)
        )

    def head(self) -> Head | None:
        """See `LedgerStore.head`."""
        return self._head

    def at_nodes(self, node_ids: Collection[int]) -> dict[int, DeviceRow]:
        """See `LedgerStore.at_nodes`."""
        return {n: self._rows[self._nodes[n]] for n in node_ids if n in self._nodes}

    def devices(self, ids: Collection[str]) -> dict[str, DeviceRow]:
        """See `LedgerStore.devices`."""
        return {i: self._rows[i] for i in ids if i in self._rows}

    def facts(self) -> dict[str, bytes]:
        """See `LedgerStore.facts`."""
        return {i: row.facts for i, row in self._rows.items() if row.facts}

    def commit(
        self,
        head: Head,
        rows: Iterable[DeviceRow] = (),
        nodes: Mapping[int, str] | None = None,
        checkpoint: Any = None,
    ) -> None:
        """See `LedgerStore.commit`."""
        self._head = head
        self._rows.update({row.device: row for row in rows})
        self._nodes.update(nodes or {})
        if checkpoint is not None:
            self.checkpoint = checkpoint
