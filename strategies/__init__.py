"""Flower strategies that wrap another strategy and compress its traffic."""

from .topk import TopK
from .uncompressed import Uncompressed
from .wrapper import StrategyWrapper

__all__ = ["StrategyWrapper", "TopK", "Uncompressed"]
