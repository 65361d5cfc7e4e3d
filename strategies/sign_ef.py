"""One bit an element: signs with error feedback."""

from __future__ import annotations

from typing import Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import get_codec

from .compressed import CompressedStrategy
from .downlinks import get_downlink
from .method import ServerMethod
from .options import WrapperOptions


class SignEF(CompressedStrategy):
    """Devices send the signs of their update and one magnitude a tensor.

    EF-signSGD. Of each tensor of 1,024 elements or more the server gets
    ``mean(|p|) sign(p)`` for the sum ``p`` of the update and of what is left of earlier
    ones, in one bit an element; the difference stays on the device and is added to its
    next update.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    error_feedback : bool (default: True)
        Whether the device remembers the difference. Without, it is lost: scaled signs
        as they were before.
    downlink : {"whole", "lattice"}
        How the model goes down: exactly, or rounded to published points, of which a
        device gets the change since the one it holds, in a few bits an element.
    **options
        See `WrapperOptions`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = SignEF(FedAvg(fraction_train=0.1))

    References
    ----------
    Karimireddy, Rebjock, Stich and Jaggi (2019), arXiv:1901.09847. What is theirs and
    what is ours is said in docs/sign-ef.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        error_feedback: bool = True,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        method = ServerMethod(
            downlink=get_downlink(downlink),
            upload=get_codec("signs"),
            error_feedback=error_feedback,
        )
        super().__init__(strategy, method, **options)
