"""Shows the site's reference what `flwr_caesar.frozen` makes of a class."""

from __future__ import annotations

from typing import Any

from griffe import Class, ExprName, Extension

_FROZEN, _DATACLASS = "flwr_caesar.frozen.frozen", "dataclasses.dataclass"


class FrozenClasses(Extension):
    """Reads ``@frozen`` as ``@dataclass``, whose parameters griffe knows to list."""

    def on_class_members(self, *, cls: Class, **kwargs: Any) -> None:
        """Rename the decorator before griffe looks for dataclasses."""
        del kwargs
        for decorator in cls.decorators:
            if getattr(decorator.value, "canonical_path", "") == _FROZEN:
                decorator.value = ExprName(_DATACLASS)
