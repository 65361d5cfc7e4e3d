"""The server's side: who is asked for what, and which replies count.

Nothing here reads a clock, draws a number or opens a file: the ledger is a store, and
numbers come from the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import replace
from typing import Any

from flwr_caesar.codec import FrameInfo
from flwr_caesar.frozen import frozen

from .ledger_api import DeviceRow, Head, LedgerStore
from .protocol import (
    DECLINED,
    EVALUATED,
    MAX_PENDING,
    NEED_WHOLE,
    STALE,
    TELLS_HELD,
    UNSETTLED,
    UPDATE,
    DownloadHeader,
    UploadHeader,
    device_id,
)
from .state import MAX_APPLIED, Version


@frozen
class Verdict:
    """Whether a reply counts.

    Parameters
    ----------
    counts : bool
        Whether its update, or its evaluation, is used.
    reason : str
        Why not; empty if it counts.
    """

    counts: bool
    reason: str = ""


class ServerSession:
    """One server process's part of a training history.

    Parameters
    ----------
    store : LedgerStore
        The ledger; a session on one that was used before goes on with its history.
    now : int
        Nanoseconds since 1970 by the server's clock. Requests of this process come
        after those of any before, if the clock is right or the ledger is the latest.
    new_id : callable
        Returns a new random nonzero number below ``2**64``.
    initial : tuple of int and bytes
        Version of the first model, for a ledger that is empty.

    Attributes
    ----------
    refusals : Counter
        Replies refused by this session, by reason.
    """

    def __init__(
        self,
        store: LedgerStore,
        *,
        now: int,
        new_id: Callable[[], int],
        initial: Version,
    ) -> None:
        self._store = store
        self._new_id = new_id
        head = store.head() or Head(new_id(), 0, 0, initial)
        self._head = replace(head, incarnation=max(now, head.incarnation + 1))
        store.commit(self._head)
        self._open: dict[int, DownloadHeader] = {}
        self._rows: dict[str, DeviceRow] = {}
        self._nodes: dict[int, str] = {}
        self._uploads: dict[int, tuple[str, int]] = {}
        self._senders: set[str] = set()
        self._train = True
        self._changes_from: Container[Version] = ()
        self.refusals: Counter[str] = Counter()

    @property
    def head(self) -> Head:
        """Where the history stands; its phase is that of the newest requests."""
        return self._head

    @property
    def accepted(self) -> frozenset[int]:
        """Nodes whose updates count in the open phase."""
        return frozenset(self._uploads)

    def open_phase(
        self,
        node_ids: Collection[int],
        *,
        train: bool = True,
        changes_from: Container[Version] = (),
        newcomer: Version | None = None,
    ) -> dict[int, DownloadHeader]:
        """Begin a phase, and return the header for each node.

        A header whose base is its target goes without a model; one without a base goes
        with the whole model; any other with a change of its base.

        Parameters
        ----------
        node_ids : collection of int
            Whom to ask.
        train : bool
            Whether they are asked for updates.
        changes_from : container of Version
            Versions that the model can be sent as a change of. The model itself need
            not be among them: who holds it is sent none.
        newcomer : tuple of int and bytes, optional
            What to suppose that a device holds that was never heard of.
        """
        self._changes_from = changes_from
        self._forget_phase()
        self._train = train
        self._head = replace(self._head, phase=self._head.phase + 1)
        rows = self._store.at_nodes(node_ids)
        self._rows = {row.device: row for row in rows.values()}
        for node_id in node_ids:
            row = rows.get(node_id)
            self._open[node_id] = DownloadHeader(
                lineage=self._head.lineage,
                order=(self._head.incarnation, self._head.phase),
                nonce=self._new_id(),
                target=self._head.version,
                base=self._base(row.held if row else newcomer),
                device=row.device if row else "",
                applied=row.applied[-MAX_PENDING:] if row else (),
            )
        return dict(self._open)

    def accept(
        self,
        node_id: int,
        reply: UploadHeader,
        info: FrameInfo | None = None,
        *,
        can: bytes = b"",
    ) -> Verdict:
        """Judge a reply to the open phase; the first one with the right nonce counts.

        Parameters
        ----------
        node_id : int
            Where it comes from.
        reply : UploadHeader
            What the device says.
        info : FrameInfo, optional
            Of the frame that came with it.
        can : bytes
            What the device says it can; empty if it does not.
        """
        request = self._open.get(node_id)
        if request is None:
            return self._refuse("no request to this node is open")
        if reply.nonce != request.nonce:
            return self._refuse("answers another request")
        del self._open[node_id]
        device = device_id(reply.token)
        known = self._row(device)
        row = known or DeviceRow(device, first=request.order)
        reason = self._why_not(request, reply, info, row)
        if reason and reply.status == UPDATE and known is None:
            return self._refuse(reason)
        self._rows[device] = replace(
            row,
            held=_held(request, reply),
            last=request.order,
            resyncs=row.resyncs + (reply.status == NEED_WHOLE),
            refused=row.refused + (bool(reason) and reply.status == UPDATE),
            can=can or row.can,
        )
        self._nodes[node_id] = device
        if reason:
            return self._refuse(reason)
        if reply.status == UPDATE:
            self._uploads[node_id] = device, reply.upload_id
            self._senders.add(device)
        return Verdict(True)

    def row(self, node_id: int) -> DeviceRow | None:
        """Return what is known of the device at a node asked in the open phase."""
        request = self._open.get(node_id)
        device = self._nodes.get(node_id) or (request.device if request else "")
        return self._rows.get(device)

    def note(self, node_id: int, facts: bytes) -> None:
        """Remember facts of a device whose reply was judged in the open phase."""
        device = self._nodes[node_id]
        self._rows[device] = replace(self._rows[device], facts=facts)

    def withdraw(self, node_id: int, reason: str) -> None:
        """Take an accepted update out again, as it turned out unusable."""
        device, _ = self._uploads.pop(node_id)
        self._senders.remove(device)
        row = self._rows[device]
        self._rows[device] = replace(row, refused=row.refused + 1)
        self.refusals[reason] += 1

    def close_phase(
        self, published: Version | None = None, checkpoint: Any = None
    ) -> None:
        """End the phase with one atomic commit.

        Parameters
        ----------
        published : tuple of int and bytes, optional
            The new model, which holds every accepted update; `None` if there is none,
            so that no update was applied.
        checkpoint : object, optional
            Passed to the store's commit.
        """
        if published is not None:
            self._head = replace(self._head, version=published)
            for device, upload_id in self._uploads.values():
                row = self._rows[device]
                self._rows[device] = replace(
                    row,
                    applied=(*row.applied, upload_id)[-MAX_APPLIED:],
                    uploads=row.uploads + 1,
                )
        seen = {*self._nodes.values()}
        rows = [row for device, row in self._rows.items() if device in seen]
        self._store.commit(self._head, rows, self._nodes, checkpoint)
        self._forget_phase()

    def _forget_phase(self) -> None:
        self._open = {}
        self._rows = {}
        self._nodes = {}
        self._uploads = {}
        self._senders = set()

    def _base(self, held: Version | None) -> Version | None:
        if held is None:
            return None
        if held == self._head.version or held in self._changes_from:
            return held
        return None

    def _row(self, device: str) -> DeviceRow | None:
        if device not in self._rows:
            self._rows.update(self._store.devices([device]))
        return self._rows.get(device)

    def _why_not(
        self,
        request: DownloadHeader,
        reply: UploadHeader,
        info: FrameInfo | None,
        row: DeviceRow,
    ) -> str:
        if reply.status == NEED_WHOLE:
            return "the device needs a whole model"
        if reply.status == STALE:
            return "the device has seen newer requests: is the server's clock right?"
        if reply.status == UNSETTLED:
            return "the device waits to hear what was applied"
        if reply.status == DECLINED:
            return "the device declined"
        if reply.status != (UPDATE if self._train else EVALUATED):
            return "the device did not do what it was asked for"
        if reply.status == EVALUATED:
            return ""
        if info is None:
            return "the update has no frame"
        if (info.lineage, info.base_version) != (request.lineage, request.target[0]):
            return "the frame is of another history or version"
        if reply.upload_id in row.applied:
            return "the update was applied before"
        known = reply.known
        if known is None:
            known = request.applied if row.device == request.device else ()
        if row.applied and row.applied[-1] not in known:
            return "another copy of the device went on without this one"
        if row.device in self._senders:
            return "the device has sent an update from another node"
        return ""

    def _refuse(self, reason: str) -> Verdict:
        self.refusals[reason] += 1
        return Verdict(False, reason)


def _held(request: DownloadHeader, reply: UploadHeader) -> Version | None:
    """Return which model a device holds from now on."""
    if reply.status == NEED_WHOLE:
        return None
    return reply.held if reply.status in TELLS_HELD else request.target
