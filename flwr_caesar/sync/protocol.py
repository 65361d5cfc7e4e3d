"""What server and device say to each other beside the frames.

Each header is a flat mapping of the kinds of values that Flower's ConfigRecord takes.
Unsigned 64-bit numbers travel as big-endian bytes, as ConfigRecord's integers are
signed. A checksum over the fields finds accidental damage; against an ill-meaning
sender each side checks what the fields say.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.digest import model_digest as model_digest
from flwr_caesar.codec.state import NO_DIGEST

from .ledger_api import MAX_APPLIED, Version
from .state import Order

UPDATE = "update"
EVALUATED = "evaluated"
NEED_WHOLE = "need-whole"
UNSETTLED = "unsettled"
STALE = "stale"
STATUSES = frozenset({UPDATE, EVALUATED, NEED_WHOLE, UNSETTLED, STALE})

MAX_PENDING = 4
TOKEN_BYTES = 16
_PREFIX = "sync-"
_DEVICE_CHARS = 32
_PAIR = struct.Struct(">QQ")
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

    def to_dict(self) -> dict[str, bytes | str]:
        """Encode for a ConfigRecord."""
        return _seal(
            {
                "lineage": _ID.pack(self.lineage),
                "order": _PAIR.pack(*self.order),
                "nonce": _ID.pack(self.nonce),
                "target": _VERSION.pack(*self.target),
                "base": _pack_version(self.base),
                "device": self.device,
                "applied": _pack_ids(self.applied),
                "memory": self.memory,
            }
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DownloadHeader:
        """Decode; keys of other parts of the record are passed over.

        Raises
        ------
        CodecError
            If a field is missing, damaged or out of range.
        """
        fields = _Fields(values)
        header = cls(
            lineage=fields.u64("lineage", least=1),
            order=fields.order(),
            nonce=fields.u64("nonce"),
            target=fields.version("target"),
            base=fields.optional_version("base"),
            device=fields.device("device"),
            applied=fields.ids("applied", MAX_APPLIED),
            memory=fields.sized("memory", len(NO_DIGEST)),
        )
        fields.require_seal()
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
        Ids of the uploads that the device knows it made: applied, or not settled yet,
        without this one. A server that applied another one since is talking to a copy
        or an old backup.
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

    def to_dict(self) -> dict[str, bytes | str]:
        """Encode for a ConfigRecord."""
        return _seal(
            {
                "lineage": _ID.pack(self.lineage),
                "order": _PAIR.pack(*self.order),
                "nonce": _ID.pack(self.nonce),
                "token": self.token,
                "status": self.status,
                "held": _pack_version(self.held),
                "base": _pack_version(self.base),
                "upload-id": _ID.pack(self.upload_id),
                "known": _pack_ids(self.known),
            }
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UploadHeader:
        """Decode; keys of other parts of the record are passed over.

        Raises
        ------
        CodecError
            If a field is missing, damaged or out of range.
        """
        fields = _Fields(values)
        header = cls(
            lineage=fields.u64("lineage", least=1),
            order=fields.order(),
            nonce=fields.u64("nonce"),
            token=fields.sized("token", TOKEN_BYTES),
            status=fields.text("status"),
            held=fields.optional_version("held"),
            base=fields.optional_version("base"),
            upload_id=fields.u64("upload-id"),
            known=fields.ids("known", _MAX_KNOWN),
        )
        fields.require_seal()
        if header.status not in STATUSES:
            raise CodecError(f"header has status {header.status!r:.40}")
        if (header.status == UPDATE) != bool(header.upload_id):
            raise CodecError("an upload id belongs to an update, and an update has one")
        return header


def _pack_version(version: Version | None) -> bytes:
    return b"" if version is None else _VERSION.pack(*version)


def _pack_ids(ids: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(ids)}Q", *ids)


def _checksum(values: Mapping[str, bytes | str]) -> bytes:
    crc = 0
    for name, value in values.items():
        data = value.encode() if isinstance(value, str) else value
        crc = zlib.crc32(b"%s=%d:" % (name.encode(), len(data)) + data, crc)
    return struct.pack(">I", crc)


def _seal(values: dict[str, bytes | str]) -> dict[str, bytes | str]:
    sealed = {_PREFIX + name: value for name, value in values.items()}
    sealed[_PREFIX + "check"] = _checksum(values)
    return sealed


class _Fields:
    """Strict access to the fields of a header that somebody sent."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._read: dict[str, bytes | str] = {}

    def text(self, name: str) -> str:
        value = self._values.get(_PREFIX + name)
        if not isinstance(value, str) or not value.isascii() or len(value) > 64:
            raise CodecError(f"header field {name!r} is missing or no short text")
        self._read[name] = value
        return value

    def data(self, name: str) -> bytes:
        value = self._values.get(_PREFIX + name)
        if not isinstance(value, bytes):
            raise CodecError(f"header field {name!r} is missing or not bytes")
        self._read[name] = value
        return value

    def sized(self, name: str, size: int) -> bytes:
        value = self.data(name)
        if len(value) != size:
            raise CodecError(f"header field {name!r} has {len(value)} bytes")
        return value

    def u64(self, name: str, *, least: int = 0) -> int:
        value: int = _ID.unpack(self.sized(name, _ID.size))[0]
        if value < least:
            raise CodecError(f"header field {name!r} is {value}")
        return value

    def order(self) -> Order:
        incarnation, phase = _PAIR.unpack(self.sized("order", _PAIR.size))
        if max(incarnation, phase) >= 1 << 63:
            raise CodecError(f"header has order {(incarnation, phase)}")
        return incarnation, phase

    def version(self, name: str) -> Version:
        number, digest = _VERSION.unpack(self.sized(name, _VERSION.size))
        if number >= 1 << 63:
            raise CodecError(f"header field {name!r} names version {number}")
        return number, digest

    def optional_version(self, name: str) -> Version | None:
        return self.version(name) if self.data(name) else None

    def device(self, name: str) -> str:
        value = self.text(name)
        if value and (
            len(value) != _DEVICE_CHARS or set(value) - set("0123456789abcdef")
        ):
            raise CodecError(f"header field {name!r} is no device id")
        return value

    def ids(self, name: str, most: int) -> tuple[int, ...]:
        value = self.data(name)
        if len(value) % _ID.size or len(value) > most * _ID.size:
            raise CodecError(f"header field {name!r} has {len(value)} bytes")
        ids = struct.unpack(f">{len(value) // _ID.size}Q", value)
        if 0 in ids or len(set(ids)) != len(ids):
            raise CodecError(f"header field {name!r} repeats an id or holds zero")
        return ids

    def require_seal(self) -> None:
        if self.data("check") != _checksum(
            {name: value for name, value in self._read.items() if name != "check"}
        ):
            raise CodecError("header is damaged: its checksum differs")
