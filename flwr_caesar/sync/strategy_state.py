"""What a Flower strategy learned so far: moments, momentum, counters.

Flower strategies keep it in plain attributes and have no interface to save it. So all
attributes that are numbers, text, arrays, records, or containers of these are taken;
functions and other objects are configuration and come from the user's code again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from flwr_caesar.codec.layout import DTYPE_CODES, Array

from .errors import DamagedStateError


@dataclass(frozen=True)
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


def capture(strategy: Strategy, *, built: StrategyState | None = None) -> StrategyState:
    """Take the state of a strategy, and of the strategies that it wraps.

    Parameters
    ----------
    strategy : Strategy
        Its arrays are not copied; a strategy that changes them in place does so in
        what is returned too.
    built : StrategyState, optional
        What `capture` returned when the strategy was new. Numbers and text that are
        still the same are left out as settings, so that a user who changes one and
        resumes gets the new one.
    """
    arrays: dict[str, Array] = {}
    tree = _capture_attributes(strategy, arrays)
    return StrategyState(_without(tree, built.tree) if built else tree, arrays)


def restore(strategy: Strategy, state: StrategyState) -> None:
    """Give a strategy, built as before, the state of its predecessor.

    Only attributes that the new strategy has are set, so its own code decides what
    they are.

    Raises
    ------
    DamagedStateError
        If `state` was not made by `capture`; the strategy is unchanged then.
    """
    try:
        planned = list(_plan(strategy, state.tree, state.arrays))
    except (KeyError, TypeError, ValueError) as err:
        raise DamagedStateError(f"the strategy's state is malformed: {err!r}") from err
    for owner, name, value in planned:
        setattr(owner, name, value)


def _capture_attributes(owner: Strategy, arrays: dict[str, Array]) -> dict[str, Any]:
    tree = {}
    for name, value in vars(owner).items():
        taken: dict[str, Array] = {}
        try:
            if isinstance(value, Strategy):
                tree[name] = ["strategy", _capture_attributes(value, arrays)]
            else:
                tree[name] = _pack(value, taken, len(arrays))
                arrays.update(taken)
        except _NotPlain:
            continue
    return tree


def _without(tree: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    learned = {}
    for name, (kind, body) in tree.items():
        before = built.get(name)
        if kind == "strategy" and before and before[0] == kind:
            learned[name] = [kind, _without(body, before[1])]
        elif kind not in ("plain", "float") or before != [kind, body]:
            learned[name] = [kind, body]
    return learned


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


def _plan(owner: Strategy, tree: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    for name, (kind, body) in tree.items():
        if name not in vars(owner):
            log(WARNING, "%s has no %r; not restored", type(owner).__name__, name)
        elif kind == "strategy":
            inner = vars(owner)[name]
            if not isinstance(inner, Strategy):
                raise TypeError(f"{name} is no strategy")
            yield from _plan(inner, body, arrays)
        else:
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
