"""The control: the inner strategy's own traffic, measured."""

from __future__ import annotations

from typing import Unpack

from flwr.serverapp.strategy import Strategy

from .compressed import CompressedStrategy
from .options import WrapperOptions


class Uncompressed(CompressedStrategy):
    """Send plain arrays, as without us, and record what they cost.

    The ClientApp needs no mod. What differs from the inner strategy alone: replies are
    checked and added up as they arrive, each round is recorded, and a run with a
    checkpoint can be resumed.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    **options
        See `WrapperOptions`.
    """

    def __init__(self, strategy: Strategy, **options: Unpack[WrapperOptions]) -> None:
        self._set_up(strategy, None, options)
