"""What server and device say to each other beside the frames.

Each header is one short string of bytes, as a device on a thin link, or with a tiny
model, would otherwise pay more for it than for the model. What a reply repeats of its
request is left out: its nonce names the request. Against an ill-meaning sender each
side checks what the fields say. The layouts are in docs/wire-format.md.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Self

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.digest import model_digest as model_digest
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.frozen import frozen

from . import wire
from .sources import TOKEN_BYTES
from .state import MAX_APPLIED, Order, Version

UPDATE = "update"
EVALUATED = "evaluated"
NEED_WHOLE = "need-whole"
UNSETTLED = "unsettled"
STALE = "stale"
DECLINED = "declined"
STATUSES = frozenset({UPDATE, EVALUATED, NEED_WHOLE, UNSETTLED, STALE, DECLINED})
NOT_NOW = frozenset({NEED_WHOLE, UNSETTLED, STALE, DECLINED})
"""Statuses of replies that are in order and carry nothing to use."""

TELLS_HELD = frozenset({STALE, DECLINED})
"""Statuses of replies that took in no model, and say which one is held."""

MAX_PENDING = 4
_DEVICE_BYTES = 16
_STATUS_CODES = {
    UPDATE: 1,
    EVALUATED: 2,
    NEED_WHOLE: 3,
    UNSETTLED: 4,
    STALE: 5,
    DECLINED: 6,
}
_STATUS_NAMES = {code: name for name, code in _STATUS_CODES.items()}
_STATUS_BITS, _KNOWN, _HELD = 7, 8, 16
_NO_BASE, _SAME_BASE, _OTHER_BASE = range(3)
_BASE_BITS, _DEVICE, _MEMORY, _LONGEST = 3, 4, 8, 16
_MAX_KNOWN = MAX_APPLIED + MAX_PENDING


def device_id(token: bytes) -> str:
    """Return the id of the device that knows `token`: half its SHA-256, in hex."""
    return hashlib.sha256(token).digest()[:_DEVICE_BYTES].hex()


class _Header(ABC):
    """What begins every note, and can also stand alone."""

    @classmethod
    @abstractmethod
    def read(cls, reader: wire.Reader) -> Self:
        """Decode; what follows is left to the reader's owner."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode a header that stands alone.

        Raises
        ------
        CodecError
            As `read` does, or if something follows.
        """
        reader = wire.Reader(data)
        header = cls.read(reader)
        reader.require_end()
        return header


@frozen
class DownloadHeader(_Header):
    """What the server says with a model.

    Parameters
    ----------
    lineage : int
        The training history.
    order : tuple of int
        When the request was made.
    nonce : int
        Random, names this request; the reply repeats it.
    target : tuple of int and bytes
        The model to work on.
    base : tuple of int and bytes, optional
        The model that the frame is a change of; equal to `target` if there is no frame
        as the device holds it already, `None` if the frame is the whole model.
    device : str
        Id of the device that the server believes to be at this node, or empty.
    applied : tuple of int
        Ids of the newest uploads applied of that device, newest last; as many as may
        wait on the device, `MAX_PENDING`.
    memory : bytes
        Digest of the codec memory that the server holds for that device's uploads.
    longest : float
        Length, in float32, of the longest update that the server believes; 0 for a
        device of which it refused none for its length.
    """

    lineage: int
    order: Order
    nonce: int
    target: Version
    base: Version | None = None
    device: str = ""
    applied: tuple[int, ...] = ()
    memory: bytes = NO_DIGEST
    longest: float = 0.0

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        is_other = self.base not in (None, self.target)
        base = (
            _OTHER_BASE if is_other else _NO_BASE if self.base is None else _SAME_BASE
        )
        has_memory = self.memory != NO_DIGEST
        flags = base | _DEVICE * bool(self.device) | _MEMORY * has_memory
        flags |= _LONGEST * bool(self.longest)
        return b"".join(
            [
                bytes([flags]),
                wire.u64(self.lineage),
                wire.u64(self.order[0]),
                wire.varint(self.order[1]),
                wire.u64(self.nonce),
                wire.version(self.target),
                wire.version(self.base) if self.base and is_other else b"",
                bytes.fromhex(self.device),
                self.memory if has_memory else b"",
                wire.ids(self.applied) if self.device else b"",
                wire.float32(self.longest) if self.longest else b"",
            ]
        )

    @classmethod
    def read(cls, reader: wire.Reader) -> DownloadHeader:
        """Decode; what follows is left to the reader's owner.

        Raises
        ------
        CodecError
            If the header is truncated or a field is out of range.
        """
        flags = reader.u8()
        kind = flags & _BASE_BITS
        most = _BASE_BITS | _DEVICE | _MEMORY | _LONGEST
        if flags > most or kind > _OTHER_BASE:
            raise CodecError(f"header has the flags {flags}")
        lineage, order = reader.u64(), (reader.u64(), reader.varint())
        if not lineage or order[0] >= 1 << 63:
            raise CodecError(f"header has order {order} of {lineage}")
        nonce, target = reader.u64(), reader.version()
        base = None if kind == _NO_BASE else target
        if kind == _OTHER_BASE and (base := reader.version()) == target:
            raise CodecError("header names its target as another model")
        has_device = bool(flags & _DEVICE)
        device = reader.take(_DEVICE_BYTES).hex() if has_device else ""
        memory = NO_DIGEST
        if flags & _MEMORY and (memory := reader.take(len(memory))) == NO_DIGEST:
            raise CodecError("header names a memory that is none")
        applied = reader.ids(MAX_PENDING) if has_device else ()
        longest = reader.float32() if flags & _LONGEST else 0.0
        return cls(
            *(lineage, order, nonce, target, base, device, applied, memory, longest)
        )


@frozen
class UploadHeader(_Header):
    """What a device says with its reply.

    Parameters
    ----------
    nonce : int
        Repeated from the request, whose lineage, order and target are meant.
    token : bytes
        Proves who the device is.
    status : str
        One of `STATUSES`. With `UPDATE`, `EVALUATED` and `UNSETTLED` the device holds
        the request's target from now on, and an update is a change of it; with
        `NEED_WHOLE` it holds nothing of use.
    held : tuple of int and bytes, optional
        With `STALE` and `DECLINED`, the model that the device holds; `None` if none.
    upload_id : int
        Random name of the update; 0 if there is none.
    known : tuple of int, optional
        With an update, ids of the uploads that the device knows it made: applied, or
        not settled yet, without this one. A server that applied another one since is
        talking to a copy or an old backup. `None`: the request was to this device, and
        it made the uploads that are named there.
    """

    nonce: int
    token: bytes
    status: str
    held: Version | None = None
    upload_id: int = 0
    known: tuple[int, ...] | None = None

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        flags = _STATUS_CODES[self.status]
        flags |= _KNOWN * (self.known is not None) | _HELD * (self.held is not None)
        return b"".join(
            [
                bytes([flags]),
                wire.u64(self.nonce),
                self.token,
                wire.u64(self.upload_id) if self.status == UPDATE else b"",
                b"" if self.known is None else wire.ids(self.known),
                b"" if self.held is None else wire.version(self.held),
            ]
        )

    @classmethod
    def read(cls, reader: wire.Reader) -> UploadHeader:
        """Decode; what follows is left to the reader's owner.

        Raises
        ------
        CodecError
            If the header is truncated or a field is out of range.
        """
        flags = reader.u8()
        status = _STATUS_NAMES.get(flags & _STATUS_BITS)
        if status is None or flags > (_STATUS_BITS | _KNOWN | _HELD):
            raise CodecError(f"header has status {flags}")
        nonce, token = reader.u64(), reader.take(TOKEN_BYTES)
        upload_id = reader.u64() if status == UPDATE else 0
        if (flags & _KNOWN and status != UPDATE) or (
            flags & _HELD and status not in TELLS_HELD
        ):
            raise CodecError(f"header says too much for the status {status}")
        if status == UPDATE and not upload_id:
            raise CodecError("an update has an upload id, and this one has none")
        known = reader.ids(_MAX_KNOWN) if flags & _KNOWN else None
        held = reader.version() if flags & _HELD else None
        return cls(nonce, token, status, held, upload_id, known)
