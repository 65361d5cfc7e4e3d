"""What the server must keep of its devices, and the little a store has to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from flwr_caesar.frozen import frozen

from .state import Order, Version


@frozen
class Head:
    """Where a training history stands.

    Parameters
    ----------
    lineage : int
        Random, 64 bits, not zero: the history's name.
    incarnation, phase : int
        Order of the last phase that was committed; both below ``2**63``.
    version : tuple of int and bytes
        The model that the history stands at.
    """

    lineage: int
    incarnation: int
    phase: int
    version: Version


@frozen
class DeviceRow:
    """What the ledger knows of one device.

    Parameters
    ----------
    device : str
        Its id, see `flwr_caesar.sync.protocol.device_id`.
    held : tuple of int and bytes, optional
        The model it holds, as it said last; `None` if it has none.
    applied : tuple of int
        Ids (unsigned, 64 bits) of its newest uploads that were applied, at most
        `flwr_caesar.sync.state.MAX_APPLIED`, newest last.
    first, last : tuple of int
        Orders of the first and the last request it answered.
    uploads, refused, resyncs : int
        Uploads applied, replies refused, and whole models asked for.
    facts : bytes
        What a strategy knows of the device; opaque here.
    can : bytes
        What the device said it can, opaque here; empty if it said nothing.
    """

    device: str
    held: Version | None = None
    applied: tuple[int, ...] = ()
    first: Order = (0, 0)
    last: Order = (0, 0)
    uploads: int = 0
    refused: int = 0
    resyncs: int = 0
    facts: bytes = b""
    can: bytes = b""


class LedgerStore(Protocol):
    """Durable memory of one training history; every write is atomic."""

    def head(self) -> Head | None:
        """Return where the history stands; `None` if nothing was committed yet."""

    def at_nodes(self, node_ids: Collection[int]) -> dict[int, DeviceRow]:
        """Return the rows of the devices last seen at these nodes, by node id.

        Several nodes may lead to one device: after a new node id, or a copied folder.
        """

    def devices(self, ids: Collection[str]) -> dict[str, DeviceRow]:
        """Return the rows of those of these devices that are known."""

    def facts(self) -> dict[str, bytes]:
        """Return the facts of all devices of which there are any."""

    def commit(
        self,
        head: Head,
        rows: Iterable[DeviceRow] = (),
        nodes: Mapping[int, str] | None = None,
        checkpoint: Any = None,
    ) -> None:
        """Write all of it, or nothing: one transaction, durable on return.

        Parameters
        ----------
        head : Head
            Replaces the one before.
        rows : iterable of DeviceRow
            New or replacing those of the same device.
        nodes : mapping of int to str
            Device last seen at a node; others stay.
        checkpoint : object, optional
            The model and whatever else must change in the same transaction; its type
            is between the store and its caller. With `None` the kept one stays.
        """
