"""Top-k updates with error feedback, and an exact model."""

from __future__ import annotations

from collections.abc import Callable

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import get_codec
from flwr_caesar.records import RoundRecord

from .framed import FramedStrategy


class TopK(FramedStrategy):
    """Devices send the largest elements of their update and remember the rest.

    The model goes down exactly (`dense` codec). Of each tensor of 1,024 elements or
    more a device sends the ``density`` largest; what it left out stays on the device
    and is added to its next update.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    density : float (default: 0.1)
        Fraction of elements sent, in ``(0, 1]``.
    values : {"float16", "float32"} (default: "float16")
        Precision of the elements sent; the rounding error stays on the device too.
    error_feedback : bool (default: True)
        Whether the device remembers the rest. Without, it is lost.
    on_record : callable, optional
        Called with the RoundRecord of each train and evaluate phase.

    Raises
    ------
    CodecError
        If a parameter is out of range.

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
        density: float = 0.1,
        values: str = "float16",
        error_feedback: bool = True,
        on_record: Callable[[RoundRecord], None] | None = None,
    ) -> None:
        super().__init__(
            strategy,
            upload=get_codec({"id": "topk", "density": density, "values": values}),
            error_feedback=error_feedback,
            on_record=on_record,
        )
