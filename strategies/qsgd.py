"""QSGD: updates, and if asked models, rounded at random to a few levels."""

from __future__ import annotations

from typing import Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import get_codec

from .compressed import CompressedStrategy
from .downlinks import DOWNLINKS, get_downlink
from .method import ServerMethod
from .options import WrapperOptions
from .whole_downlink import WholeDownlink


class QSGD(CompressedStrategy):
    """Devices round their update at random to a few levels, unbiased.

    The mean over devices and rounds is that of the exact updates, so nothing is kept
    on the device. Tensors of fewer than 1,024 elements are sent exactly.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    levels : int
        Positive levels, 1 to 65,536; 127 is about a byte an element before coding, 7
        about half of one.
    norm : {"linf", "l2"}
        What the levels are fractions of: the largest magnitude of a bucket, or its
        Euclidean norm, as published.
    bucket : int
        Consecutive elements of a tensor that share a norm, which costs 32 bits. 0: all
        of a tensor.
    downlink : {"whole", "lattice", "rounded"}
        How the model goes down: exactly, rounded to published points, or rounded at
        random to the same levels as uploads, each model anew; the server goes on with
        the exact one.
    **options
        See `WrapperOptions`.

    Raises
    ------
    CodecError
        If a parameter of the codec is out of range.
    ValueError
        If another one is.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = QSGD(FedAvg(fraction_train=0.1), levels=7)

    References
    ----------
    Alistarh et al. (2017), arXiv:1610.02132.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        levels: int = 127,
        norm: str = "linf",
        bucket: int = 512,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        codec = get_codec(
            {"id": "qsgd", "levels": levels, "norm": norm, "bucket": bucket}
        )
        if downlink not in (*DOWNLINKS, "rounded"):
            names = ", ".join((*DOWNLINKS, "rounded"))
            raise ValueError(f"downlink must be one of {names}, not {downlink}")
        rounded = downlink == "rounded"
        method = ServerMethod(
            downlink=WholeDownlink(codec) if rounded else get_downlink(downlink),
            upload=codec,
        )
        super().__init__(strategy, method, **options)
