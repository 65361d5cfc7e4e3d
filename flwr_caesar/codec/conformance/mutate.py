"""Hostile frames: mutations of a good frame that still pass its checksum.

Used by the suite and the fuzz benchmark. A mutation knows the frame's structure but no
codec's, so that it works on any codec's frames.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import zstandard

from ..contract.base import MAX_TABLE_BYTES, TABLE_TAG
from ..contract.errors import CodecError
from ..contract.frame import FrameReader

_PREAMBLE_BYTES = 56
_DIGEST_OFFSET = 40
_ENTRY = struct.Struct("<4sBQQ")
_LIES = (0, 1, 2, 7, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)
_CONFIGS = (
    b"",
    b"{}",
    b"[]",
    b'{"id":"dense"}',
    b'{"id":null}',
    b'{"id":"dense","id":"topk"}',
    b'{"id":"topk","density":NaN}',
    b'{"id":"topk","density":' + b"9" * 4000 + b"}",
    b'{"id":' + b"[" * 60_000,
    b"\xff" * 9,
)
_BOMB_BYTES = 1 << 26
_MAX_NOISE = 1 << 20


@dataclass
class Parts:
    """A frame taken apart, to be put together wrongly.

    Parameters
    ----------
    preamble : bytearray
        The 56 fixed bytes.
    config : bytes
        The configuration's JSON.
    entries : list of list
        ``[tag, encoding, raw size, stored size, stored bytes]`` per section.
    """

    preamble: bytearray
    config: bytes
    entries: list[list[bytes | int]]

    @classmethod
    def of(cls, frame: bytes) -> Parts:
        """Take a good frame apart."""
        (count,) = struct.unpack_from("<H", frame, 6)
        (size,) = struct.unpack_from("<H", frame, _PREAMBLE_BYTES)
        table = _PREAMBLE_BYTES + 2 + size
        offset = table + count * _ENTRY.size
        entries: list[list[bytes | int]] = []
        for i in range(count):
            tag, encoding, raw, stored = _ENTRY.unpack_from(
                frame, table + i * _ENTRY.size
            )
            data = frame[offset : offset + stored]
            entries.append([tag, encoding, raw, stored, data])
            offset += stored
        preamble = bytearray(frame[:_PREAMBLE_BYTES])
        return cls(preamble, frame[_PREAMBLE_BYTES + 2 : table], entries)

    def join(self) -> bytes:
        """Put the frame together, without its checksum."""
        header = struct.pack("<H", len(self.config)) + self.config
        header += b"".join(_ENTRY.pack(*entry[:4]) for entry in self.entries)
        self.preamble[6:12] = struct.pack("<HI", len(self.entries), len(header))
        data = b"".join(bytes(entry[4]) for entry in self.entries)
        return bytes(self.preamble) + header + data


def seal(body: bytes) -> bytes:
    """Append the checksum."""
    return body + struct.pack("<I", zlib.crc32(body))


def mutate(frame: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return one hostile relative of a good frame.

    Parameters
    ----------
    frame : bytes
        A good frame.
    rng : Generator
        Source of the mutation.

    Returns
    -------
    tuple of str and bytes
        The kind of mutation, and the frame; one time in twenty with the checksum left
        wrong.
    """
    kind = str(rng.choice(list(_MUTATIONS)))
    body = _MUTATIONS[kind](frame, rng)
    if rng.random() < 0.05:
        return kind, body + rng.bytes(4)
    return kind, seal(body)


def _lie(rng: np.random.Generator, truth: int, width: int) -> int:
    near = (truth + 1, truth - 1, 2 * truth, truth // 2, truth ^ 1, 3 * truth + 1)
    chosen = int(rng.choice(len(_LIES) + len(near)))
    return (_LIES + near)[chosen] % (1 << 8 * width)


def _overwrite(data: bytearray, rng: np.random.Generator, head: int) -> None:
    """Write a lying integer somewhere, half of the times into the first bytes."""
    if not data:
        return
    width = int(rng.choice([1, 1, 2, 4, 8]))
    reach = min(head, len(data)) if rng.random() < 0.5 else len(data)
    at = int(rng.integers(reach))
    truth = int.from_bytes(data[at : at + width], "little")
    end = min(at + width, len(data))
    data[at:end] = _lie(rng, truth, width).to_bytes(width, "little")[: end - at]


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def _flip_bits(frame: bytes, rng: np.random.Generator) -> bytes:
    body = bytearray(frame[:-4])
    _flip(body, rng)
    return bytes(body)


def _resize(frame: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.2:
        return frame[:-4] + rng.bytes(int(rng.integers(1, 99)))
    return frame[: int(rng.integers(len(frame)))]


def _random(frame: bytes, rng: np.random.Generator) -> bytes:
    noise = rng.bytes(int(rng.integers(len(frame) + 1)))
    return noise if rng.random() < 0.3 else frame[:_PREAMBLE_BYTES] + noise


def _preamble(frame: bytes, rng: np.random.Generator) -> bytes:
    body = bytearray(frame[:_PREAMBLE_BYTES])
    _overwrite(body, rng, _PREAMBLE_BYTES)
    return bytes(body) + frame[_PREAMBLE_BYTES:-4]


def _config(frame: bytes, rng: np.random.Generator) -> bytes:
    parts = Parts.of(frame)
    if rng.random() < 0.5:
        parts.config = _CONFIGS[int(rng.integers(len(_CONFIGS)))]
    else:
        config = bytearray(parts.config)
        _flip(config, rng)
        parts.config = bytes(config)
    return parts.join()


def _pick(parts: Parts, rng: np.random.Generator) -> list[bytes | int] | None:
    if not parts.entries:
        return None
    return parts.entries[int(rng.integers(len(parts.entries)))]


def _section_table(frame: bytes, rng: np.random.Generator) -> bytes:
    parts = Parts.of(frame)
    entry = _pick(parts, rng)
    if entry is not None:
        field = int(rng.integers(4))
        if field == 0:
            entry[0] = rng.bytes(4)
        else:
            width = 1 if field == 1 else 8
            entry[field] = _lie(rng, int(entry[field]), width)
    return parts.join()


def _swap_sections(frame: bytes, rng: np.random.Generator) -> bytes:
    parts = Parts.of(frame)
    a, b = _pick(parts, rng), _pick(parts, rng)
    if a is not None and b is not None:
        action = int(rng.integers(4))
        if action == 0:
            a[0], b[0] = b[0], a[0]
        elif action == 1:
            a[1:], b[1:] = b[1:], a[1:]
        elif action == 2:
            parts.entries.append(list(a))
        else:
            parts.entries.remove(a)
    return parts.join()


@cache
def _zstd_bomb() -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(bytes(_BOMB_BYTES))


def _bomb(frame: bytes, rng: np.random.Generator) -> bytes:
    parts = Parts.of(frame)
    entry = _pick(parts, rng)
    if entry is not None:
        data = bytearray(_zstd_bomb())
        if rng.random() < 0.5:  # the zstd header lies, or is damaged
            _overwrite(data, rng, 16)
        entry[1] = int(rng.integers(1, 5))
        entry[3], entry[4] = len(data), bytes(data)
        if rng.random() < 0.5:
            entry[2] = _BOMB_BYTES
    return parts.join()


def _content(frame: bytes, rng: np.random.Generator) -> bytes:
    """Change a section's content, and compress and seal it again."""
    parts = Parts.of(frame)
    entry = _pick(parts, rng)
    if entry is None:
        return parts.join()
    tag = bytes(entry[0]).rstrip(b"\0").decode()
    try:
        size = int(entry[2])
        content = bytearray(FrameReader(frame).section(tag, size=size))
    except CodecError as err:
        raise ValueError(f"mutate() needs a good frame: {err}") from err
    action = rng.random()
    if action < 0.3:
        _flip(content, rng)
    elif action < 0.8:
        _overwrite(content, rng, 24)
    elif action < 0.9:
        content[:] = rng.bytes(len(content))
    else:
        content[:] = content[: int(rng.integers(len(content) + 1))]
    raw = bytes(content)
    entry[1], entry[2], entry[3], entry[4] = 0, len(raw), len(raw), raw
    if len(raw) > 64 and rng.random() < 0.3:
        packed = zstandard.ZstdCompressor(level=1).compress(raw)
        entry[1], entry[3], entry[4] = 1, len(packed), packed
    if tag == TABLE_TAG and len(raw) <= MAX_TABLE_BYTES:
        digest = hashlib.sha256(raw).digest()[:16]
        parts.preamble[_DIGEST_OFFSET:_PREAMBLE_BYTES] = digest
    return parts.join()


def _content_twice(frame: bytes, rng: np.random.Generator) -> bytes:
    return _content(seal(_content(frame, rng)), rng)


def _random_contents(frame: bytes, rng: np.random.Generator) -> bytes:
    """Keep the header and the tensor table, and draw all other contents at random."""
    parts = Parts.of(frame)
    for entry in parts.entries:
        if bytes(entry[0]).rstrip(b"\0") != TABLE_TAG.encode():
            size = min(int(entry[2]), _MAX_NOISE)
            if rng.random() < 0.3:
                size = int(rng.integers(2 * size + 1))
            entry[1:] = [0, size, size, rng.bytes(size)]
    return parts.join()


_MUTATIONS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "bit flips": _flip_bits,
    "other length": _resize,
    "random bytes": _random,
    "preamble": _preamble,
    "configuration": _config,
    "section table": _section_table,
    "sections swapped": _swap_sections,
    "zstd bomb": _bomb,
    "content": _content,
    "content twice": _content_twice,
    "random contents": _random_contents,
}
KINDS: Sequence[str] = tuple(_MUTATIONS)
