"""A ledger for a server that keeps no checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .ledger_api import DeviceRow, Head


class MemoryLedger:
    """A `LedgerStore` that lasts as long as the process; checkpoints are not kept."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._rows: dict[str, DeviceRow] = {}
        self._nodes: dict[int, str] = {}

    def head(self) -> Head | None:
        """Return where the history stands."""
        return self._head

    def at_nodes(self, node_ids: Collection[int]) -> dict[int, DeviceRow]:
        """Return the rows of the devices last seen at these nodes."""
        return {n: self._rows[self._nodes[n]] for n in node_ids if n in self._nodes}

    def devices(self, ids: Collection[str]) -> dict[str, DeviceRow]:
        """Return the rows of those of these devices that are known."""
        return {i: self._rows[i] for i in ids if i in self._rows}

    def commit(
        self,
        head: Head,
        rows: Iterable[DeviceRow] = (),
        nodes: Mapping[int, str] | None = None,
        checkpoint: Any = None,
    ) -> None:
        """Keep all of it."""
        self._head = head
        self._rows.update((row.device, row) for row in rows)
        self._nodes.update(nodes or {})
