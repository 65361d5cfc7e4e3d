"""The frame: a self-describing, checksummed container of sections.

`docs/wire-format.md` is the normative description; this module is one reader and the
only writer of it. A frame is hostile until checked: every length is compared with what
the reader expects before anything of that length is allocated.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zstandard

from flwr_caesar.frozen import frozen

from .errors import CodecError
from .layout import Array
from .planes import decompress, decompress_elements, shuffle, unshuffle
from .state import NO_DIGEST
from .strict_json import read_json

MAGIC = b"CSAR"
FORMAT_VERSION = 1
_PREAMBLE = struct.Struct("<4sBBHII8sQQ16s")
_ENTRY = struct.Struct("<4sBQQ")
_LINEAGE_OFFSET = 24
_CRC = struct.Struct("<I")
_ZSTD_LEVEL = 3
MAX_SECTIONS = 1024
AS_THEY_ARE, RAISED = 2, 4
"""Flags: some tensors are in a section of their own; some are raised to a base."""
_RAW, _ZSTD = 0, 1
_SHUFFLED = {2: 2, 3: 4, 4: 8}
_SHUFFLE_CODE = {size: code for code, size in _SHUFFLED.items()}


@frozen
class Section:
    """A named run of bytes.

    Parameters
    ----------
    tag : str
        One to four ASCII characters, unique in a frame.
    data : bytes-like
        Content before compression.
    itemsize : int
        Bytes of one element if the content is an array of numbers whose bytes are
        worth transposing before zstd; 0 stores entropy-coded content as it is, 1
        tries zstd alone.
    """

    tag: str
    data: bytes | memoryview
    itemsize: int = 0


@frozen
class FrameInfo:
    """What a frame says about itself, without its content.

    Parameters
    ----------
    config : mapping
        Codec id under ``"id"`` and its parameters.
    layout_digest : bytes
        Digest of the tensor table, 16 bytes.
    state_version, state_digest : int, bytes
        Codec state the decoder must hold; 0 and zeros if none.
    lineage, base_version : int
        Training history and model version the content refers to; 0 if none.
    sections : mapping of str to int
        Bytes of each section before compression.
    size : int
        Bytes of the whole frame.
    flags : int
        `AS_THEY_ARE`, `RAISED`, both or neither.
    """

    config: Mapping[str, Any]
    layout_digest: bytes
    state_version: int
    state_digest: bytes
    lineage: int
    base_version: int
    sections: Mapping[str, int]
    size: int
    flags: int = 0


def _store(section: Section) -> tuple[int, bytes | memoryview]:
    size = len(section.data)
    if section.itemsize == 0 or size == 0:
        return _RAW, section.data
    encoding, data = _ZSTD, section.data
    if section.itemsize in _SHUFFLE_CODE and size % section.itemsize == 0:
        encoding = _SHUFFLE_CODE[section.itemsize]
        data = shuffle(section.data, section.itemsize)
    packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
    return (encoding, packed) if len(packed) < size else (_RAW, section.data)


def stored_size(data: bytes) -> int:
    """Return how many bytes of a frame a section of such content takes."""
    return len(_store(Section("", data, itemsize=1))[1])


def write_frame(
    *,
    config: Mapping[str, Any],
    layout_digest: bytes,
    sections: Sequence[Section],
    state_version: int = 0,
    state_digest: bytes = NO_DIGEST,
    flags: int = 0,
) -> bytes:
    """Assemble a frame.

    Parameters
    ----------
    config : mapping
        JSON-serialisable codec configuration with its ``"id"``.
    layout_digest : bytes
        16 bytes naming the tensor table.
    sections : sequence of Section
        Content, in order.
    state_version, state_digest : int, bytes
        State the decoder must hold.
    flags : int
        See `FrameInfo`.
    """
    config_bytes = json.dumps(
        config, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
    if len(config_bytes) > 0xFFFF:
        raise CodecError(f"codec configuration of {len(config_bytes)} bytes, max 65535")
    _require_few(len(sections))
    for section in sections:
        if not _is_tag(section.tag):
            raise CodecError(f"section tag {section.tag!r} is not 1 to 4 ASCII letters")
    stored = [_store(section) for section in sections]
    header = struct.pack("<H", len(config_bytes)) + config_bytes
    for section, (encoding, data) in zip(sections, stored, strict=True):
        tag = section.tag.encode().ljust(4, b"\0")
        header += _ENTRY.pack(tag, encoding, len(section.data), len(data))
    preamble = _PREAMBLE.pack(
        MAGIC,
        FORMAT_VERSION,
        flags,
        len(sections),
        len(header),
        state_version,
        state_digest,
        0,
        0,
        layout_digest,
    )
    return _seal([preamble, header, *(data for _, data in stored)])


def head_size(frame: bytes) -> int:
    """Return where the contents of a frame's sections begin; its end if it is none."""
    if len(frame) < _PREAMBLE.size:
        return len(frame)
    return min(_PREAMBLE.size + int(_PREAMBLE.unpack_from(frame)[4]), len(frame))


def add_section(frame: bytes, section: Section, flag: int) -> bytes:
    """Return `frame` with one more section, and a flag that says so."""
    head = bytearray(frame[: _PREAMBLE.size])
    count, size = struct.unpack_from("<HI", head, 6)
    _require_few(count + 1)
    encoding, data = _store(section)
    entry = _ENTRY.pack(
        section.tag.encode().ljust(4, b"\0"), encoding, len(section.data), len(data)
    )
    grown = FORMAT_VERSION, frame[5] | flag, count + 1, size + len(entry)
    struct.pack_into("<BBHI", head, 4, *grown)
    end = _PREAMBLE.size + size
    body = frame[_PREAMBLE.size : end], entry, frame[end : -_CRC.size], data
    return _seal([bytes(head), *body])


def _require_few(sections: int) -> None:
    """Refuse more sections than a codec needs: each costs its reader some time."""
    if sections > MAX_SECTIONS:
        raise CodecError(f"frame of {sections} sections, at most {MAX_SECTIONS}")


def _seal(parts: Sequence[bytes | memoryview]) -> bytes:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return b"".join([*parts, _CRC.pack(crc)])


def stamp(frame: bytes, *, lineage: int, base_version: int) -> bytes:
    """Return `frame` with its lineage and base version set, re-checksummed."""
    fields = struct.pack("<QQ", lineage, base_version)
    end = _LINEAGE_OFFSET + len(fields)
    return _seal([frame[:_LINEAGE_OFFSET], fields, memoryview(frame)[end : -_CRC.size]])


class FrameReader:
    """Checked access to a frame's header and sections.

    Parameters
    ----------
    frame : bytes
        The frame.

    Raises
    ------
    CodecError
        If the bytes are not a whole, intact frame of a known format version.
    """

    def __init__(self, frame: bytes) -> None:
        view = memoryview(frame)
        size = len(view)
        if size < _PREAMBLE.size + _CRC.size or bytes(view[:4]) != MAGIC:
            raise CodecError(f"not a frame: {size} bytes without the CSAR magic")
        (
            _,
            version,
            flags,
            count,
            header_size,
            state_version,
            state_digest,
            lineage,
            base_version,
            layout_digest,
        ) = _PREAMBLE.unpack_from(view)
        if version != FORMAT_VERSION:
            raise CodecError(
                f"frame format {version}; this reader knows {FORMAT_VERSION}: "
                "install the same flwr-caesar on both sides"
            )
        if flags & ~(AS_THEY_ARE | RAISED):
            raise CodecError(f"frame has unknown flags {flags:#x}")
        if _CRC.unpack_from(view, size - 4)[0] != zlib.crc32(view[: size - 4]):
            raise CodecError("frame is truncated or corrupt: its checksum differs")
        _require_few(count)
        start = _PREAMBLE.size
        end = start + header_size
        if end > size - _CRC.size or header_size < 2:
            raise CodecError("frame header exceeds the frame")
        config_size = struct.unpack_from("<H", view, start)[0]
        table = start + 2 + config_size
        if table + count * _ENTRY.size != end:
            raise CodecError("frame header does not match its section count")
        self._config = _parse_config(bytes(view[start + 2 : table]))
        self._entries: dict[str, tuple[int, int, memoryview]] = {}
        offset = end
        for i in range(count):
            entry = _ENTRY.unpack_from(view, table + i * _ENTRY.size)
            raw_tag, encoding, raw, stored = entry
            tag = raw_tag.rstrip(b"\0").decode("ascii", "replace")
            if not _is_tag(tag):
                raise CodecError(f"section has the tag {raw_tag!r}, not ASCII letters")
            if tag in self._entries or stored > size - _CRC.size - offset:
                raise CodecError(f"section {tag!r} is repeated or exceeds the frame")
            self._entries[tag] = (encoding, raw, view[offset : offset + stored])
            offset += stored
        if offset != size - _CRC.size:
            raise CodecError("frame has bytes that no section names")
        self.info = FrameInfo(
            config=self._config,
            layout_digest=layout_digest,
            state_version=state_version,
            state_digest=state_digest,
            lineage=lineage,
            base_version=base_version,
            sections={tag: raw for tag, (_, raw, _) in self._entries.items()},
            size=size,
            flags=flags,
        )

    def __contains__(self, tag: str) -> bool:
        return tag in self._entries

    def section(
        self, tag: str, *, size: int | None = None, max_size: int | None = None
    ) -> bytes:
        """Return a section's content.

        Parameters
        ----------
        tag : str
            Name of the section.
        size, max_size : int
            Exact, or largest allowed, content size in bytes; one must be given, and
            is checked before anything is decompressed.

        Raises
        ------
        CodecError
            If the section is missing, of another size, or does not decompress.
        """
        encoding, raw, stored = self._entry(tag, size, max_size)
        if encoding == _RAW:
            return bytes(stored)
        with _named(tag):
            data = decompress(stored, raw)
        return unshuffle(data, _SHUFFLED[encoding]) if encoding in _SHUFFLED else data

    def elements(self, tag: str, *, size: int) -> Array:
        """Return a section's content, shape ``(size,)``, uint8, to write to.

        Of a long one, nothing else of its length is held meanwhile.

        Parameters
        ----------
        tag, size
            See `section`.

        Raises
        ------
        CodecError
            See `section`.
        """
        encoding, raw, stored = self._entry(tag, size, None)
        if encoding not in _SHUFFLED:
            return np.frombuffer(bytearray(self.section(tag, size=size)), np.uint8)
        with _named(tag):
            return decompress_elements(stored, raw, _SHUFFLED[encoding])

    def _entry(
        self, tag: str, size: int | None, max_size: int | None
    ) -> tuple[int, int, memoryview]:
        if tag not in self._entries:
            raise CodecError(f"frame has no section {tag!r}")
        encoding, raw, stored = self._entries[tag]
        limit = size if size is not None else max_size
        if limit is None:
            raise TypeError("section() needs size or max_size")
        if raw > limit or (size is not None and raw != size):
            raise CodecError(f"section {tag!r} claims {raw} bytes, expected {limit}")
        if encoding not in (_RAW, _ZSTD) and encoding not in _SHUFFLED:
            raise CodecError(f"section {tag!r} has unknown encoding {encoding}")
        is_odd = raw % _SHUFFLED[encoding] if encoding in _SHUFFLED else 0
        if is_odd or (encoding == _RAW and len(stored) != raw):
            raise CodecError(f"section {tag!r} has the wrong length")
        return encoding, raw, stored


@contextmanager
def _named(tag: str) -> Iterator[None]:
    """Say of which section an error is."""
    try:
        yield
    except CodecError as err:
        raise CodecError(f"section {tag!r} {err}") from err


def _parse_config(data: bytes) -> dict[str, Any]:
    try:
        config = read_json(data)
    except ValueError as err:
        raise CodecError(f"codec configuration is not JSON: {err}") from err
    if not isinstance(config, dict) or not isinstance(config.get("id"), str):
        raise CodecError("codec configuration names no codec id")
    return config


def _is_tag(tag: str) -> bool:
    return tag.isascii() and 1 <= len(tag) <= 4 and "\0" not in tag


def same_config(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, and no number a boolean."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_config(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_config, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def inspect_frame(frame: bytes) -> FrameInfo:
    """Return what a frame says about itself, checked but not decoded."""
    return FrameReader(frame).info
