"""Flower strategies that wrap another strategy and compress its traffic."""

from .caesar import Caesar
from .error_bounded import ErrorBounded
from .fedcomloc import FedComLoc
from .pruning import MagnitudePruning
from .topk import TopK
from .uncompressed import Uncompressed
from .wrapper import StrategyWrapper, WrapperOptions

__all__ = [
    "Caesar",
    "ErrorBounded",
    "FedComLoc",
    "MagnitudePruning",
    "StrategyWrapper",
    "TopK",
    "Uncompressed",
    "WrapperOptions",
]
