"""A device's state as a manifest and arrays, for any store."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from flwr_caesar.codec.layout import Array, Arrays

from .errors import DamagedStateError
from .state import MODEL_PAYLOAD, UPDATE_PAYLOAD, DeviceState, Pending

FORMAT = 2
_KINDS = ("residual", "codec", "pending", "extras")
_PAYLOADS = (UPDATE_PAYLOAD, MODEL_PAYLOAD)


def seal(manifest: dict[str, Any]) -> bytes:
    """Serialise a manifest behind the checksum of its text."""
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x\n" % zlib.crc32(text) + text


def unseal(data: bytes) -> dict[str, Any]:
    """Parse a sealed manifest.

    Raises
    ------
    DamagedStateError
        If it was not written by `seal`, or by a newer version of this package.
    """
    head, _, text = data.partition(b"\n")
    if head != b"%08x" % zlib.crc32(text):
        raise DamagedStateError("the manifest has the wrong checksum")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DamagedStateError(f"the manifest is malformed: {err}") from err
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise DamagedStateError(
            f"it has format {found!r} and this version of flwr-caesar reads {FORMAT}"
        )
    return manifest


def describe(state: DeviceState) -> dict[str, Any]:
    """Return everything of a state but its arrays and frames."""
    return {
        "format": FORMAT,
        "token": state.token.hex(),
        "lineage": state.lineage,
        "order": list(state.order),
        "version": state.version,
        "digest": state.digest.hex(),
        "pending": [[p.upload_id, *p.order, p.payload, p.told] for p in state.pending],
        "settled": list(state.settled),
        "codec_version": state.codec_version,
    }


def pack_memory(state: DeviceState) -> dict[str, Array]:
    """Return all arrays but the model's, and pending frames, under one set of names."""
    frames = {
        str(index): np.frombuffer(pending.frame, np.uint8)
        for index, pending in enumerate(state.pending)
    }
    parts = (state.residual, state.codec_arrays, frames, state.extras)
    return {
        f"{kind}/{name}": array
        for kind, part in zip(_KINDS, parts, strict=True)
        for name, array in part.items()
    }


def restore(manifest: dict[str, Any], model: Arrays, memory: Arrays) -> DeviceState:
    """Put a state together again.

    Raises
    ------
    DamagedStateError
        If the parts do not make one.
    """
    parts: dict[str, dict[str, Array]] = {kind: {} for kind in _KINDS}
    try:
        for name, array in memory.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = array
        frames = parts["pending"]
        pending = tuple(
            Pending(
                _int(upload),
                (_int(incarnation), _int(phase)),
                frame.tobytes(),
                _PAYLOADS[_PAYLOADS.index(payload)],
                _told(*told),
            )
            for (upload, incarnation, phase, payload, *told), frame in zip(
                manifest["pending"],
                (frames[str(index)] for index in range(len(frames))),
                strict=True,
            )
        )
        incarnation, phase = manifest["order"]
        return DeviceState(
            token=bytes.fromhex(manifest["token"]),
            lineage=_int(manifest["lineage"]),
            order=(_int(incarnation), _int(phase)),
            version=_int(manifest["version"]),
            digest=bytes.fromhex(manifest["digest"]),
            model=model,
            residual=parts["residual"],
            pending=pending,
            settled=tuple(map(_int, manifest["settled"])),
            codec_version=_int(manifest["codec_version"]),
            codec_arrays=parts["codec"],
            extras=parts["extras"],
        )
    except (KeyError, TypeError, ValueError) as err:
        raise DamagedStateError(f"its parts do not fit: {err!r}") from err


def _told(text: Any = "") -> str:
    """Return what was told; nothing in states written before it was kept."""
    if not isinstance(text, str) or (text and type(json.loads(text)) is not dict):
        raise TypeError(f"{text!r:.40} is not what a reply told")
    return text


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
