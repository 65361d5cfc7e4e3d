"""What server and device say to each other beside the frames.

Each header is one short string of bytes, under the key ``"header"`` of a ConfigRecord,
whose own names and tags would cost more than what they name. All numbers are
big-endian; a checksum finds accidental damage; against an ill-meaning sender each side
checks what the fields say. The layouts are in docs/wire-format.md.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.digest import model_digest as model_digest
from flwr_caesar.codec.contract.state import NO_DIGEST

from .ledger_api import MAX_APPLIED, Version
from .state import Order

UPDATE = "update"
EVALUATED = "evaluated"
NEED_WHOLE = "need-whole"
UNSETTLED = "unsettled"
STALE = "stale"
DECLINED = "declined"
STATUSES = frozenset({UPDATE, EVALUATED, NEED_WHOLE, UNSETTLED, STALE, DECLINED})
NOT_NOW = frozenset({NEED_WHOLE, UNSETTLED, STALE, DECLINED})
"""Statuses of replies that are in order and carry nothing to use."""

MAX_PENDING = 4
TOKEN_BYTES = 16
HEADER_KEY = "header"
_DEVICE_CHARS = 32
_STATUS_CODES = {
    UPDATE: 1,
    EVALUATED: 2,
    NEED_WHOLE: 3,
    UNSETTLED: 4,
    STALE: 5,
    DECLINED: 6,
}
_STATUS_NAMES = {code: name for name, code in _STATUS_CODES.items()}
_REQUEST = struct.Struct(">QQQQ")
_CHECK = struct.Struct(">I")
_VERSION = struct.Struct(">Q8s")
_ID = struct.Struct(">Q")
_MAX_KNOWN = MAX_APPLIED + MAX_PENDING


def device_id(token: bytes) -> str:
    """Return the id of the device that knows `token`: half its SHA-256, in hex."""
    return hashlib.sha256(token).hexdigest()[:_DEVICE_CHARS]


@dataclass(frozen=True)
class DownloadHeader:
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
        Ids of the newest uploads applied of that device, newest last.
    memory : bytes
        Digest of the codec memory that the server holds for that device's uploads.
    """

    lineage: int
    order: Order
    nonce: int
    target: Version
    base: Version | None = None
    device: str = ""
    applied: tuple[int, ...] = ()
    memory: bytes = NO_DIGEST

    def to_dict(self) -> dict[str, bytes]:
        """Encode for a ConfigRecord."""
        return _sealed(
            [
                _REQUEST.pack(self.lineage, *self.order, self.nonce),
                _VERSION.pack(*self.target),
                _pack_optional(self.base),
                bytes([bool(self.device)]) + bytes.fromhex(self.device),
                self.memory,
                _pack_ids(self.applied),
            ]
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DownloadHeader:
        """Decode; keys of other parts of the record are passed over.

        Raises
        ------
        CodecError
            If the header is missing, damaged, or a field is out of range.
        """
        reader = _Reader(values)
        lineage, order, nonce = reader.request()
        header = cls(
            lineage=lineage,
            order=order,
            nonce=nonce,
            target=reader.version(),
            base=reader.optional_version(),
            device=reader.take(_DEVICE_CHARS // 2).hex() if reader.flag() else "",
            memory=reader.take(len(NO_DIGEST)),
            applied=reader.ids(MAX_APPLIED),
        )
        reader.require_end()
        return header


@dataclass(frozen=True)
class UploadHeader:
    """What a device says with its reply.

    Parameters
    ----------
    lineage, order, nonce : int, tuple of int, int
        Repeated from the request.
    token : bytes
        Proves who the device is.
    status : str
        One of `STATUSES`.
    held : tuple of int and bytes, optional
        The model that the device holds from now on; `None` if none.
    base : tuple of int and bytes, optional
        The model that the update is a change of.
    upload_id : int
        Random name of the update; 0 if there is none.
    known : tuple of int
        With an update, ids of the uploads that the device knows it made: applied, or
        not settled yet, without this one. A server that applied another one since is
        talking to a copy or an old backup.
    """

    lineage: int
    order: Order
    nonce: int
    token: bytes
    status: str
    held: Version | None = None
    base: Version | None = None
    upload_id: int = 0
    known: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, bytes]:
        """Encode for a ConfigRecord."""
        return _sealed(
            [
                _REQUEST.pack(self.lineage, *self.order, self.nonce),
                self.token,
                bytes([_STATUS_CODES[self.status]]),
                _pack_optional(self.held),
                _pack_optional(self.base),
                _ID.pack(self.upload_id),
                _pack_ids(self.known),
            ]
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UploadHeader:
        """Decode; keys of other parts of the record are passed over.

        Raises
        ------
        CodecError
            If the header is missing, damaged, or a field is out of range.
        """
        reader = _Reader(values)
        lineage, order, nonce = reader.request()
        header = cls(
            lineage=lineage,
            order=order,
            nonce=nonce,
            token=reader.take(TOKEN_BYTES),
            status=reader.status(),
            held=reader.optional_version(),
            base=reader.optional_version(),
            upload_id=reader.u64(),
            known=reader.ids(_MAX_KNOWN),
        )
        reader.require_end()
        if (header.status == UPDATE) != bool(header.upload_id):
            raise CodecError("an upload id belongs to an update, and an update has one")
        return header


def _pack_optional(version: Version | None) -> bytes:
    return b"\0" if version is None else b"\1" + _VERSION.pack(*version)


def _pack_ids(ids: tuple[int, ...]) -> bytes:
    return struct.pack(f">B{len(ids)}Q", len(ids), *ids)


def _sealed(parts: list[bytes]) -> dict[str, bytes]:
    data = b"".join(parts)
    return {HEADER_KEY: data + _CHECK.pack(zlib.crc32(data))}


class _Reader:
    """Strict access to the fields of a header that somebody sent, in their order."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        data = values.get(HEADER_KEY)
        if not isinstance(data, bytes):
            raise CodecError("the message's record has no header")
        self._data, self._at = data[: -_CHECK.size], 0
        seal = data[-_CHECK.size :]
        if seal != _CHECK.pack(zlib.crc32(self._data)):
            raise CodecError("header is damaged: its checksum differs")

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise CodecError("header is truncated")
        self._at += size
        return taken

    def flag(self) -> bool:
        (value,) = self.take(1)
        if value > 1:
            raise CodecError(f"header has the flag {value}")
        return bool(value)

    def u64(self) -> int:
        value: int = _ID.unpack(self.take(_ID.size))[0]
        return value

    def request(self) -> tuple[int, Order, int]:
        lineage, incarnation, phase, nonce = _REQUEST.unpack(self.take(_REQUEST.size))
        if not lineage or max(incarnation, phase) >= 1 << 63:
            raise CodecError(f"header has order {(incarnation, phase)} of {lineage}")
        return lineage, (incarnation, phase), nonce

    def version(self) -> Version:
        number, digest = _VERSION.unpack(self.take(_VERSION.size))
        if number >= 1 << 63:
            raise CodecError(f"header names version {number}")
        return number, digest

    def optional_version(self) -> Version | None:
        return self.version() if self.flag() else None

    def status(self) -> str:
        (code,) = self.take(1)
        if code not in _STATUS_NAMES:
            raise CodecError(f"header has status {code}")
        return _STATUS_NAMES[code]

    def ids(self, most: int) -> tuple[int, ...]:
        (count,) = self.take(1)
        if count > most:
            raise CodecError(f"header has {count} ids, at most {most} are expected")
        ids = struct.unpack(f">{count}Q", self.take(count * _ID.size))
        if 0 in ids or len(set(ids)) != len(ids):
            raise CodecError("header repeats an id or holds zero")
        return ids

    def require_end(self) -> None:
        if self._at != len(self._data):
            raise CodecError("header has bytes after its end")
