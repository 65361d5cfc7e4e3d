"""Settings that both halves of a method share, and their form on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Self, get_type_hints

from flwr_caesar.codec import CodecError
from flwr_caesar.frozen import frozen

Value = bool | int | float | str
_KINDS = (bool, int, float, str)
_LONGEST = 256


@frozen
class Settings:
    """Base of a method's settings: a frozen dataclass of plain values.

    Fields are `bool`, `int`, `float` or `str`; on the wire their names have dashes. One
    with its default value is not sent.
    A subclass that allows less overrides ``__post_init__`` and raises CodecError: what
    arrives is checked by the very code that makes it.
    """

    def to_dict(self) -> dict[str, Value]:
        """Return what differs from the defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        changed = {k: v for k, v in asdict(self).items() if v != defaults[k]}
        return {k.replace("_", "-"): v for k, v in changed.items()}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned, from whoever sent it.

        Raises
        ------
        CodecError
            If a value is missing, unknown, of another kind or out of range.
        """
        hints = get_type_hints(cls)
        known = {field.name.replace("_", "-"): field for field in fields(cls)}
        for key in values:
            if key not in known:
                raise CodecError(f"{cls.__name__} has no setting {key!r:.40}")
        found = {}
        for key, field in known.items():
            if key in values:
                found[field.name] = _checked(key, values[key], hints[field.name])
            elif field.default is MISSING:
                raise CodecError(f"the setting {key!r} is missing")
        return cls(**found)


def _checked(name: str, value: Any, kind: type) -> Value:
    is_number = kind is float and type(value) is int
    if (type(value) is not kind and not is_number) or kind not in _KINDS:
        raise CodecError(f"the setting {name!r} is {value!r:.40}, not {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise CodecError(f"the setting {name!r} is {value}")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise CodecError(f"the setting {name!r} is longer than {_LONGEST} characters")
    return kind(value)
