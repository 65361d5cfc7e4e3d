"""Top-k updates with error feedback."""

from __future__ import annotations

from typing import Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.plan.by_size import by_size

from .compressed import CompressedStrategy
from .downlinks import get_downlink
from .method import ServerMethod
from .options import WrapperOptions


class TopK(CompressedStrategy):
    """Devices send the largest elements of their update and remember the rest.

    Of each tensor of 1,024 elements or
    more a device sends the ``density`` largest; what it left out stays on the device
    and is added to its next update.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    density : float, optional
        Fraction of elements sent, in ``(0, 1]``. By default 0.1, and more of a model of
        fewer than 80,000 elements: 0.4 up to 50,000
        (`flwr_caesar.plan.by_size.by_size`).
    values : {"float16", "float32"} (default: "float16")
        Precision of the elements sent; the rounding error stays on the device too.
    error_feedback : bool (default: True)
        Whether the device remembers the rest. Without, it is lost.
    downlink : {"whole", "lattice"}
        How the model goes down: exactly, or rounded to published points, of which a
        device gets the change since the one it holds, in a few bits an element.
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
    >>> strategy = TopK(FedAvg(fraction_train=0.1), density=0.1)

    References
    ----------
    Aji and Heafield (2017), arXiv:1704.05021; Stich et al. (2018), arXiv:1809.07599.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        density: float | None = None,
        values: str = "float16",
        error_feedback: bool = True,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        def upload(elements: int) -> Codec:
            own = by_size(elements, small=0.4, usual=0.1)
            kept = own if density is None else density
            return get_codec({"id": "topk", "density": kept, "values": values})

        method = ServerMethod(
            downlink=get_downlink(downlink),
            upload=upload,
            error_feedback=error_feedback,
        )
        super().__init__(strategy, method, **options)
