"""Flower strategies that wrap another strategy and compress its traffic."""

from .caesar import Caesar
from .topk import TopK
from .uncompressed import Uncompressed
from .wrapper import StrategyWrapper, WrapperOptions

__all__ = ["Caesar", "StrategyWrapper", "TopK", "Uncompressed", "WrapperOptions"]
