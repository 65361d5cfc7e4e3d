"""JSON from whoever sent it: UTF-8, no key twice, no number that is none."""

from __future__ import annotations

import json
import math
from typing import Any


def read_json(data: bytes, *, finite: bool = True) -> Any:
    """Parse a JSON text strictly.

    Parameters
    ----------
    data : bytes
        In UTF-8, without a byte order mark.
    finite : bool
        Whether to refuse ``NaN``, ``Infinity`` and numbers beyond float64; False where
        whoever looks at the values does.

    Raises
    ------
    ValueError
        If it is not such a text, nested too deeply, or repeats a key at any depth.
    """
    refused: dict[str, Any] = {}
    if finite:
        refused = {"parse_constant": _refuse, "parse_float": _finite}
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique_keys, **refused)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.40} is beyond float64")
    return value
