"""A device's state as a manifest and arrays, for any store."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from flwr_caesar.codec.contract.layout import Array, Arrays

from .errors import DamagedStateError, StateError
from .short import Short, ShortResidual
from .state import (
    MAX_TOLD_BYTES,
    MODEL_PAYLOAD,
    UPDATE_PAYLOAD,
    DeviceState,
    Pending,
)

FORMAT, SHORT_FORMAT, PLAIN_FORMAT = 5, 4, 3
# 2 had what was told in the manifest. 4 has a residual in 16 bits or a model as changes
# of another, 5 has a model in blocks. A state is written in the oldest that has all it
# needs, as earlier releases read that.
_READABLE = (2, PLAIN_FORMAT, SHORT_FORMAT, FORMAT)
MAX_MANIFEST_BYTES = 64 << 20
_KINDS = ("residual", "codec", "pending", "extras", "told")
_SHORT = "short"
_PAYLOADS = (UPDATE_PAYLOAD, MODEL_PAYLOAD)


def seal(manifest: dict[str, Any]) -> bytes:
    """Serialise a manifest behind the checksum of its text.

    Raises
    ------
    StateError
        If it is longer than `MAX_MANIFEST_BYTES`, which no reader takes.
    """
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    sealed = b"%08x\n" % zlib.crc32(text) + text
    if len(sealed) > MAX_MANIFEST_BYTES:
        raise StateError(
            f"the device's state has {len(sealed)} bytes beside its arrays; at most "
            f"{MAX_MANIFEST_BYTES} can be kept"
        )
    return sealed


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
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or found not in _READABLE:
        raise DamagedStateError(
            f"it has format {found!r} and this version of flwr-caesar reads {FORMAT}"
        )
    return manifest


def describe(state: DeviceState) -> dict[str, Any]:
    """Return everything of a state but its arrays, frames and what was told.

    Earlier releases pass over ``longest`` and ``shares``, which are there where they
    say something.
    """
    described = {
        "format": (
            SHORT_FORMAT if isinstance(state.residual, ShortResidual) else PLAIN_FORMAT
        ),
        "token": state.token.hex(),
        "lineage": state.lineage,
        "order": list(state.order),
        "version": state.version,
        "digest": state.digest.hex(),
        "pending": [[p.upload_id, *p.order, p.payload] for p in state.pending],
        "settled": list(state.settled),
        "codec_version": state.codec_version,
        **({"reported": [state.reported, state.reported_by]} if state.reported else {}),
    }
    if state.longest:
        described["longest"] = state.longest
    if any(pending.share for pending in state.pending):
        described["shares"] = [pending.share for pending in state.pending]
    return described


def pack_memory(state: DeviceState) -> dict[str, Array]:
    """Return all arrays but the model's, and what waits, under one set of names.

    Raises
    ------
    StateError
        If what a reply told is longer than `MAX_TOLD_BYTES`.
    """
    frames, told = {}, {}
    for index, pending in enumerate(state.pending):
        frames[str(index)] = np.frombuffer(pending.frame, np.uint8)
        if pending.told:
            told[str(index)] = np.frombuffer(_checked(pending.told), np.uint8)
    residual, short = _split(state.residual)
    parts = (residual, state.codec_arrays, frames, state.extras, told, short)
    return {
        f"{kind}/{name}": array
        for kind, part in zip((*_KINDS, _SHORT), parts, strict=True)
        for name, array in part.items()
    }


def split_residual(memory: Arrays) -> tuple[Arrays, Arrays]:
    """Return what `pack_memory` returned without the residual, and the residual."""
    parts: tuple[dict[str, Array], dict[str, Array]] = {}, {}
    for name, array in memory.items():
        parts[name.partition("/")[0] in (_KINDS[0], _SHORT)][name] = array
    return parts


def _split(residual: Arrays) -> tuple[Arrays, Arrays]:
    """Return the tensors of a residual that are kept as they are, and those in short.

    The latter's names begin with the exponent.
    """
    if not isinstance(residual, ShortResidual):
        return residual, {}
    kept = residual.kept.items()
    return (
        {name: each for name, each in kept if not isinstance(each, Short)},
        {
            f"{each.exponent}/{name}": each.values
            for name, each in kept
            if isinstance(each, Short)
        },
    )


def _residual(exact: Arrays, short: Arrays) -> Arrays:
    if not short:
        return exact
    kept: dict[str, Short | Array] = dict(exact)
    for key, values in short.items():
        exponent, _, name = key.partition("/")
        kept[name] = Short(values, int(exponent))
    return ShortResidual(kept)


def _checked(told: str) -> bytes:
    data = told.encode()
    if len(data) > MAX_TOLD_BYTES:
        raise StateError(
            f"the app's metrics and labels take {len(data)} bytes as text, and the "
            f"device can keep at most {MAX_TOLD_BYTES} to answer the same request "
            "again; return fewer of them, or long lists as a file of the app's own"
        )
    return data


def restore(manifest: dict[str, Any], model: Arrays, memory: Arrays) -> DeviceState:
    """Put a state together again.

    Raises
    ------
    DamagedStateError
        If the parts do not make one.
    """
    parts: dict[str, dict[str, Array]] = {kind: {} for kind in (*_KINDS, _SHORT)}
    try:
        for name, array in memory.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = array
        frames, told = parts["pending"], parts["told"]
        shares = manifest.get("shares", [0.0] * len(manifest["pending"]))
        pending = tuple(
            Pending(
                _int(upload),
                (_int(incarnation), _int(phase)),
                frames[str(index)].tobytes(),
                _PAYLOADS[_PAYLOADS.index(payload)],
                _told(told.pop(str(index), None), *inline),
                _positive(share),
            )
            for index, (
                (upload, incarnation, phase, payload, *inline),
                share,
            ) in enumerate(zip(manifest["pending"], shares, strict=True))
        )
        if told or len(frames) != len(pending):
            raise ValueError("uploads that are not listed")
        incarnation, phase = manifest["order"]
        reported, reported_by = manifest.get("reported", ("", 0))
        if not isinstance(reported, str):
            raise TypeError(f"{reported!r:.40} is not what a device reported")
        return DeviceState(
            token=bytes.fromhex(manifest["token"]),
            lineage=_int(manifest["lineage"]),
            order=(_int(incarnation), _int(phase)),
            version=_int(manifest["version"]),
            digest=bytes.fromhex(manifest["digest"]),
            model=model,
            residual=_residual(parts["residual"], parts[_SHORT]),
            pending=pending,
            settled=tuple(map(_int, manifest["settled"])),
            codec_version=_int(manifest["codec_version"]),
            codec_arrays=parts["codec"],
            extras=parts["extras"],
            reported=reported,
            reported_by=_int(reported_by),
            longest=_positive(manifest.get("longest", 0.0)),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise DamagedStateError(f"its parts do not fit: {err!r}") from err


def _told(kept: Array | None, inline: Any = "") -> str:
    """Return what was told; nothing in states written before it was kept."""
    text = inline if kept is None else kept.tobytes().decode()
    if not isinstance(text, str) or (text and type(json.loads(text)) is not dict):
        raise TypeError(f"{text!r:.40} is not what a reply told")
    return text


def _positive(value: Any) -> float:
    if type(value) is not float or not value >= 0:
        raise TypeError(f"{value!r} is no length")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
