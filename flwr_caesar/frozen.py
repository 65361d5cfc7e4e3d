"""Frozen dataclasses whose methods are not compiled anew for each class.

`dataclasses.dataclass` writes six methods of each class as source text and compiles it,
which takes 0.4 ms. A message on a SuperNode is a new process that imports dozens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import (
    MISSING,
    Field,
    FrozenInstanceError,
    dataclass,
    field,
    fields,
    is_dataclass,
)
from typing import Any, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: _Class) -> _Class:
    """Make of a class what ``@dataclass(frozen=True)`` makes of it, in less time.

    Fields, defaults, ``KW_ONLY``, ``__post_init__``, ``fields``, ``replace``, patterns,
    equality and hashes are those of dataclasses; either can derive from the other.
    """
    derived = any(map(is_dataclass, cls.__mro__[1:]))
    made: Any = dataclass(init=False, repr=False, eq=False, frozen=derived)(cls)
    made.__dataclass_params__.frozen = True
    known = {each.name: each for each in fields(made)}
    shown = [name for name, each in known.items() if each.repr]
    compared = [name for name, each in known.items() if each.compare]
    in_order: tuple[str, ...] = made.__match_args__
    is_checked = hasattr(cls, "__post_init__")

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        own = self.__dict__
        if args:
            if len(args) > len(in_order):
                most = len(in_order)
                raise TypeError(f"{cls.__name__} takes {most} arguments by place")
            own.update(zip(in_order, args, strict=False))
            if kwargs and not own.keys().isdisjoint(kwargs):
                raise TypeError(f"{cls.__name__} is given an argument twice")
        own.update(kwargs)
        if len(own) < len(known) or own.keys() != known.keys():
            _complete(own, known, cls.__name__)
        if is_checked:
            self.__post_init__()

    def text(self: Any) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({inside})"

    def equals(self: Any, other: object) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return _values(self, compared) == _values(other, compared)

    def hashed(self: Any) -> int:
        return hash(_values(self, compared))

    methods = {
        "__init__": init,
        "__repr__": text,
        "__eq__": equals,
        "__hash__": hashed,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
    }
    for name in methods.keys() - cls.__dict__.keys():
        setattr(cls, name, methods[name])
    return cls


def _complete(own: dict[str, Any], known: Mapping[str, Field[Any]], of: str) -> None:
    """Add the defaults of what was not given to a class."""
    for name in own:
        if name not in known:
            raise TypeError(f"{of} has no argument {name!r}")
    for name, each in known.items():
        if name in own:
            continue
        if each.default is not MISSING:
            own[name] = each.default
        elif each.default_factory is not MISSING:
            own[name] = each.default_factory()
        else:
            raise TypeError(f"{of} needs the argument {name!r}")


def _values(of: Any, names: list[str]) -> tuple[Any, ...]:
    return tuple([getattr(of, name) for name in names])


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}, or delete it")
