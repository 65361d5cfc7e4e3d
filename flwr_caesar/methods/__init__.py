"""Which methods there are, and what their two halves say to each other."""

from typing import TYPE_CHECKING, Any

from .halves import device_method
from .settings import Settings

if TYPE_CHECKING:
    from .registry import MethodSpec, get_method, list_methods

__all__ = [
    "MethodSpec",
    "Settings",
    "device_method",
    "get_method",
    "list_methods",
]


def __getattr__(name: str) -> Any:
    """Import the registry of strategies when it is asked for: no device asks."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import registry

    return getattr(registry, name)
