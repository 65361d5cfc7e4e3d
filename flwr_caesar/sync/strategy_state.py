"""What a Flower strategy learned so far: moments, momentum, counters.

Flower strategies keep it in plain attributes and have no interface to save it. So all
attributes that are numbers, text, arrays, records, or containers of these are taken;
functions and other objects are configuration and come from the user's code again.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec.contract.layout import DTYPE_CODES, Array
from flwr_caesar.flower import log
from flwr_caesar.frozen import frozen

from .errors import DamagedStateError
from .tensors import checksum, to_chunks


@frozen
class StrategyState:
    """Attributes of a strategy as plain data.

    Parameters
    ----------
    tree : mapping of str to object
        JSON values by attribute name; an array is ``["array", its number]``.
    arrays : mapping of str to ndarray
        The arrays by their number.
    """

    tree: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


class _NotPlain(Exception):  # noqa: N818
    """A value is configuration, not data."""


class Learned:
    """What a strategy learns, apart from what its user set.

    Settings are the user's: one that is changed in the code before a run is resumed
    is in force. State is the run's: moments, adapted norms, counters. So whatever an
    attribute was when the strategy was new is a setting, and whatever the strategy made
    of it since is state; if the user changes what it was, that counts.

    Parameters
    ----------
    strategy : Strategy
        As its user built it, before it has learned or is given anything.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._built = _fingerprints(strategy)

    def capture(self) -> StrategyState:
        """Take the state of the strategy, and of the strategies that it wraps.

        Its arrays are not copied; a strategy that changes them in place does so in what
        is returned too.
        """
        arrays: dict[str, Array] = {}
        return StrategyState(_captured(self._strategy, self._built, arrays), arrays)

    def restore(self, state: StrategyState) -> None:
        """Give the strategy the state of its predecessor.

        Only attributes that it has are set, so its own code decides what they are.

        Raises
        ------
        DamagedStateError
            If `state` was not captured from a strategy; this one is unchanged then.
        """
        try:
            assigned = list(
                _assigned(self._strategy, self._built, state.tree, state.arrays)
            )
        except (KeyError, TypeError, ValueError) as err:
            raise DamagedStateError(
                f"the strategy's state is malformed: {err!r}"
            ) from err
        for owner, name, value in assigned:
            setattr(owner, name, value)


def _fingerprints(owner: Strategy) -> dict[str, Any]:
    """Return what every attribute is, as a few letters; nested for strategies."""
    found: dict[str, Any] = {}
    for name, value in vars(owner).items():
        if isinstance(value, Strategy):
            found[name] = _fingerprints(value)
            continue
        arrays: dict[str, Array] = {}
        with contextlib.suppress(_NotPlain):
            found[name] = _fingerprint(_pack(value, arrays, 0), arrays)
    return found


def _fingerprint(packed: Any, arrays: Mapping[str, Array]) -> str:
    text = json.dumps(packed).encode()
    return f"{zlib.crc32(text):08x}{checksum(to_chunks(arrays)):08x}"


def _captured(
    owner: Strategy, built: Mapping[str, Any], arrays: dict[str, Array]
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    settings = _parameters(owner)
    for name, value in vars(owner).items():
        before = built.get(name)
        if isinstance(value, Strategy):
            before = before if isinstance(before, dict) else {}
            tree[name] = ["strategy", _captured(value, before, arrays)]
            continue
        taken: dict[str, Array] = {}
        try:
            packed = _pack(value, taken, 0)
            if _fingerprint(packed, taken) == before:
                continue
            taken.clear()
            packed = _pack(value, taken, len(arrays))
        except _NotPlain:
            continue
        arrays.update(taken)
        is_setting = name in settings and before is not None
        tree[name] = ["changed", [before, *packed]] if is_setting else packed
    return tree


def _parameters(owner: Strategy) -> set[str]:
    """Return the names of what the user sets of a strategy."""
    found: set[str] = set()
    for cls in type(owner).__mro__:
        if "__init__" in vars(cls):
            found.update(inspect.signature(vars(cls)["__init__"]).parameters)
    return found


def _pack(value: Any, arrays: dict[str, Array], start: int) -> Any:
    def pack(item: Any) -> Any:
        return _pack(item, arrays, start)

    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.name not in DTYPE_CODES:
            raise _NotPlain
        name = str(start + len(arrays))
        arrays[name] = np.asarray(value)
        return ["array" if isinstance(value, np.ndarray) else "scalar", name]
    if value is None or isinstance(value, bool | int | str):
        return ["plain", value]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, bytes | bytearray):
        return ["bytes", pack(np.frombuffer(value, np.uint8))[1]]
    if isinstance(value, ArrayRecord):
        rows = [
            [name, row.dtype, list(row.shape), row.stype, pack(row.data)]
            for name, row in value.items()
        ]
        return ["record", rows]
    if type(value) in (list, tuple, set):
        return [type(value).__name__, [pack(item) for item in value]]
    if type(value) is dict:
        return ["dict", [[pack(key), pack(item)] for key, item in value.items()]]
    raise _NotPlain


def _assigned(
    owner: Strategy,
    built: Mapping[str, Any],
    tree: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> Iterator[tuple[Strategy, str, Any]]:
    settings = _parameters(owner)
    for name, (kind, body) in tree.items():
        if name not in vars(owner):
            log(WARNING, "%s has no %r; not restored", type(owner).__name__, name)
        elif kind == "strategy":
            inner = vars(owner)[name]
            if not isinstance(inner, Strategy):
                raise TypeError(f"{name} is no strategy")
            yield from _assigned(inner, built[name], body, arrays)
        elif kind == "changed":
            before, kind, body = body
            value = _unpack(kind, body, arrays)
            if before == built.get(name):
                yield owner, name, value
            else:
                log(INFO, "%r is as it is set now, not as the run left it", name)
        # States of before settings were told from what was learned have all of them.
        elif not (kind in ("plain", "float") and name in settings):
            yield owner, name, _unpack(kind, body, arrays)


def _unpack(kind: str, body: Any, arrays: Mapping[str, Array]) -> Any:
    def unpack(items: Any) -> Any:
        return (_unpack(kind, body, arrays) for kind, body in items)

    match kind:
        case "plain":
            return body
        case "float":
            return float.fromhex(body)
        case "array":
            return arrays[body].copy()
        case "scalar":
            return arrays[body][()]
        case "bytes":
            return arrays[body].tobytes()
        case "record":
            return ArrayRecord(
                {
                    name: FlowerArray(dtype, tuple(shape), stype, next(unpack([data])))
                    for name, dtype, shape, stype, data in body
                }
            )
        case "list":
            return list(unpack(body))
        case "tuple":
            return tuple(unpack(body))
        case "set":
            return set(unpack(body))
        case "dict":
            return dict(tuple(unpack(pair)) for pair in body)
    raise ValueError(f"{kind!r} is not a kind of value")
