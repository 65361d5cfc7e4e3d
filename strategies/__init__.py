"""Flower strategies that wrap another strategy and compress its traffic."""

from .caesar import Caesar
from .fedcomloc import FedComLoc
from .pruning import MagnitudePruning
from .error_bounded import ErrorBounded
from .topk import TopK
from .uncompressed import Uncompressed
from .wrapper import StrategyWrapper, WrapperOptions

__all__ = [
    "Caesar",
    "FedComLoc",
    "MagnitudePruning",
    "ErrorBounded",
    "StrategyWrapper",
    "TopK",
    "Uncompressed",
    "WrapperOptions",
]
