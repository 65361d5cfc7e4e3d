"""Which methods there are, and what their two halves say to each other."""

from .registry import MethodSpec, device_method, get_method, list_methods
from .settings import Settings

__all__ = [
    "MethodSpec",
    "Settings",
    "device_method",
    "get_method",
    "list_methods",
]
