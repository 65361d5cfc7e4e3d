"""Flower strategies that wrap another strategy and compress its traffic."""

from .caesar import Caesar
from .error_bounded import ErrorBounded
from .topk import TopK
from .uncompressed import Uncompressed
from .wrapper import StrategyWrapper, WrapperOptions

__all__ = [
    "Caesar",
    "ErrorBounded",
    "StrategyWrapper",
    "TopK",
    "Uncompressed",
    "WrapperOptions",
]
