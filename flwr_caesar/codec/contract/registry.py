"""Codecs by id: ours, and third parties' through an entry-point group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from .base import Codec
from .errors import CodecError

ENTRY_POINT_GROUP = "flwr_caesar.codecs"

_OURS = {
    "caesar_model": "caesar_model:CaesarModelCodec",
    "cast": "cast:CastCodec",
    "correlation": "correlation:CorrelationCodec",
    "dense": "dense:DenseCodec",
    "error_bounded": "error_bounded:ErrorBoundedCodec",
    "lattice": "lattice:LatticeCodec",
    "predicted": "predicted:PredictedCodec",
    "prune": "prune:PruneCodec",
    "qsgd": "qsgd:QSGDCodec",
    "quantized": "quantized:QuantizedCodec",
    "rotated": "rotated:RotatedCodec",
    "signs": "signs:SignsCodec",
    "ternary": "ternary:TernaryCodec",
    "topk": "topk:TopKCodec",
}


def list_codecs() -> list[str]:
    """Return the ids of all installed codecs, sorted."""
    theirs = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(_OURS.keys() | theirs)


def get_codec(config: Mapping[str, Any] | str) -> Codec:
    """Build a codec from its configuration.

    Parameters
    ----------
    config : mapping or str
        ``{"id": "topk", "density": 0.01}``, or an id alone for the defaults.

    Returns
    -------
    Codec
        The codec whose `config` equals the mapping with defaults filled in.

    Raises
    ------
    CodecError
        If the id or a parameter is unknown, or a value is out of range.
    """
    parameters: dict[str, Any] = {"id": config}
    if not isinstance(config, str):
        parameters = dict(config)
    codec_id = parameters.pop("id", None)
    cls = _find(codec_id)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for name, value in parameters.items():
        if name not in known:
            raise CodecError(
                f"{codec_id}: no parameter {name!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
        default = known[name].default
        if _is_whole(value) and type(default) is int:
            parameters[name] = int(value)
        elif not _fits(value, default):
            raise CodecError(f"{codec_id}: {name} cannot be {value!r}")
    try:
        return cls(**parameters)
    except TypeError as err:
        raise CodecError(f"{codec_id}: {err}") from err


def _is_whole(value: Any) -> bool:
    """Whether a number with a point, as JSON may write it, is a whole one."""
    return isinstance(value, float) and value.is_integer()


def _fits(value: Any, default: Any) -> bool:
    """Whether a value has the kind of the parameter's default."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) == isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and abs(value) < math.inf
    if isinstance(default, (int, str)):
        return isinstance(value, type(default))
    return True


def _find(codec_id: Any) -> type[Codec]:
    if not isinstance(codec_id, str):
        raise CodecError(f"a codec configuration needs a text 'id', not {codec_id!r}")
    if codec_id in _OURS:
        module, _, name = _OURS[codec_id].partition(":")
        found = getattr(import_module(f"flwr_caesar.codec.codecs.{module}"), name)
    else:
        points = entry_points(group=ENTRY_POINT_GROUP, name=codec_id)
        if not points:
            raise CodecError(
                f"no codec {codec_id!r}; installed are {', '.join(list_codecs())}"
            )
        try:
            found = next(iter(points)).load()
        except (ImportError, AttributeError) as err:
            raise CodecError(f"codec {codec_id!r} does not load: {err}") from err
    if not (isinstance(found, type) and issubclass(found, Codec)):
        raise CodecError(f"entry point of codec {codec_id!r} is not a Codec class")
    return found
