"""Short texts and frames in fewer bytes: raw deflate that starts from common words.

A frame of a few numbers, or a plan, is mostly names, zeros and digits that both sides
know beforehand. The words are a part of the protocol, docs/wire-format.md: a change of
them is a change of its version.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.strict_json import read_json

_LENGTHS = struct.Struct("<HH")
_NO_MORE = b"\3\0"
_DENSE = 512

# The likeliest last: deflate names a nearer word in fewer bits.
WORDS = b"".join(
    [
        b'{"labels":[1,10,100],"part":{"record":"exact":"max-residual-age":"start":{',
        b'"bits":"exact_below":0,"fine_below":1024},"budget":"stride":"norm":"linf",',
        b'{"bits":4,"exact_below":1024,"id":"rotated","scale":"unbiased","seed":0}',
        b'{"exact_below":1024,"id":"qsgd","levels":7,"norm":"linf","seed":0}',
        b'{"bits":8.0,"density":1.0,"exact_below":1024,"id":"quantized","levels":',
        b'"uniform"}{"density":0.01,"exact_below":1024,"id":"ternary"}',
        b'{"exact_below":1024,"id":"signs"}{"dtype":"float16","exact_below":1024,',
        b'"id":"cast"}{"drop_fraction":0.6,"exact_below":1024,"id":"caesar_model"}',
        b'{"allocation":"peak","bits":6.0,"budget":0,"density":0.01,"exact_below":',
        b'1024,"id":"correlation","memory":true}{"exact_below":0,"exclude_1d":true,',
        b'"id":"prune","prune_rate":0.5}{"abs_bound":0.0,"exact_below":1024,"id":',
        b'"error_bounded","rel":0.01}{"id":"lattice_model"}{"exact_below":0,',
        b'"fine_below":1024,"id":"lattice","nmse":0.0,"rate":0.2919,"step":0.0}',
        b'{"part":"recovery","part":"control","settings":{"epoch":"lr":0.1,"p":0.1,',
        b'"phase":"settle","support":true,"settled":"phase":"evaluate","phase":',
        b'"train"},"upload":{"id":"dense"},"upload":{"density":0.1,"exact_below":1024,',
        b'"id":"topk","values":"float16"}}',
        b"CSAR\1\4\6\0", bytes(40), b"CSAR\1\0\2\0\x3a\0\0\0", bytes(28),
        b"POS\0\0\0\0\0\0\0\0\0\0\0VAL\0\0\0\0\0\0\0\0\0\0\0X8\0\0\0\x08",
        b"\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0X4\0\0\0\x04\0\0\0\0\0\0\0\x04",
        b'\0\0\0\0\0\0\0\x10\0{"id":"dense"}TABL\0\x11\0\0\0\0\0\0\0\x11',
        b"\0\0\0\0\0\0\0X4\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0",
        b"\1\0\0\0\1\x000\x0b\1\1\0\0\0\0\0\0\0",
    ]
)  # fmt: skip


def shorten(data: bytes, *, head: int = 0) -> bytes:
    """Return `data` as a raw deflate stream that begins with `WORDS`.

    Parameters
    ----------
    data : bytes
        What is to be shorter.
    head : int
        After how many bytes what follows, fewer than 65,536 bytes, may be so dense that
        deflate would only make it longer: it then stands in the stream as it is. 0
        where there is no such place.
    """
    if not head:
        return _deflate(data, zlib.Z_FINISH)
    # The flush ends with a stored block of no bytes, of which the lengths come last:
    # with others it is that of the rest. What follows is an empty block, the last.
    flushed = _deflate(data[:head], zlib.Z_SYNC_FLUSH)
    rest = data[head:]
    lengths = _LENGTHS.pack(len(rest), len(rest) ^ 0xFFFF)
    parts = flushed[: -_LENGTHS.size] + lengths + rest + _NO_MORE
    if len(rest) > _DENSE:  # and takes its time
        return parts
    return min(_deflate(data, zlib.Z_FINISH), parts, key=len)


def _deflate(data: bytes, flush: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, WORDS)
    return packer.compress(data) + packer.flush(flush)


def lengthen(data: bytes, *, most: int) -> bytes:
    """Return what was shortened.

    Raises
    ------
    CodecError
        If it is damaged, or has more than `most` bytes.
    """
    opener = zlib.decompressobj(-15, WORDS)
    try:
        found = opener.decompress(data, most + 1)
    except zlib.error as err:
        raise CodecError(f"what was shortened is damaged: {err}") from err
    if len(found) > most:
        raise CodecError(f"what was shortened has more than {most} bytes")
    if not opener.eof or opener.unused_data:
        raise CodecError("what was shortened does not end where it should")
    return found


def pack_mapping(values: Mapping[str, Any]) -> bytes:
    """Return a JSON-serialisable mapping shortened; nothing for an empty one."""
    if not values:
        return b""
    return shorten(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def unpack_mapping(data: bytes, *, most: int, finite: bool = True) -> dict[str, Any]:
    """Return what `pack_mapping` packed.

    Parameters
    ----------
    data : bytes
        What it returned.
    most : int
        Bytes of JSON.
    finite : bool
        Whether to refuse NaN and infinity; see `read_json`.

    Raises
    ------
    CodecError
        If it is damaged, is no mapping, or has more than `most` bytes of JSON.
    """
    if not data:
        return {}
    try:
        found = read_json(lengthen(data, most=most), finite=finite)
    except ValueError as err:
        raise CodecError(f"the record is malformed: {err}") from err
    if not isinstance(found, dict):
        raise CodecError("the record is malformed: it holds no mapping")
    return found
