"""Largest elements of what low rank and earlier rounds leave, with error feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from logging import INFO
from typing import Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Codec
from flwr_caesar.codec.codecs.correlation import CorrelationCodec
from flwr_caesar.flower import log
from flwr_caesar.plan.by_size import by_size

from .compressed import CompressedStrategy
from .downlink import Downlink
from .downlinks import get_downlink
from .method import ServerMethod
from .options import WrapperOptions
from .phase import Device, DevicePlan, Phase


class CorrelationMethod(ServerMethod):
    """The server's half: devices that were away too long start anew.

    Parameters
    ----------
    codec : callable
        Returns that of the uploads for a model of so many elements.
    downlink : Downlink
        How the model goes down.
    error_feedback : bool
        Whether devices keep what they leave out.
    upload_memory, max_gap : int
        See `CorrelationAware`.
    """

    def __init__(
        self,
        codec: Callable[[int], Codec],
        downlink: Downlink,
        *,
        error_feedback: bool,
        upload_memory: int | None,
        max_gap: int,
    ) -> None:
        super().__init__(
            downlink=downlink,
            upload=codec,
            error_feedback=error_feedback,
            upload_memory=upload_memory,
        )
        self._max_gap = max_gap

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Let devices that were away too long send without prediction."""
        away = {d.node_id for d in devices if self._max_gap and self._is_away(d)}
        if away:
            log(INFO, "%d devices were away too long and start anew", len(away))
        upload = self.upload_for(phase.layout)
        return {
            d.node_id: DevicePlan(upload, use_memory=d.node_id not in away)
            for d in devices
        }

    def _is_away(self, device: Device) -> bool:
        row = device.row
        return row is not None and device.header.order[1] - row.last[1] > self._max_gap


class CorrelationAware(CompressedStrategy):
    """Devices send what of their update correlation does not explain.

    Each tensor of 1,024 elements or more is sent as its largest elements, beside a
    low-rank part and, with `history`, a multiple of what the device sent last, where
    these leave less error in the same bytes. Tensors of larger values get more bits.
    What is left out stays on the device and is added to its next update.

    Works around Flower's strategies for differential privacy; see
    docs/correlation-aware.md for the order and for what must be off.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    density : float, optional
        Fraction of elements that sending the largest alone takes, in ``(0, 1]``; the
        other modes fit into the same bytes. By default 0.01, and more of a model of
        fewer than 80,000 elements: 0.4 up to 50,000
        (`flwr_caesar.plan.by_size.by_size`).
    bits : float
        Mean bits of a sent value, from 2 to 8.
    budget : int
        Most bytes of an upload's lossy tensors; the density is lowered to fit. 0: none.
    allocation : {"peak", "variance", "uniform"}
        What the bits of tensors follow: the square of the largest element, the mean
        square of the elements sent, or nothing.
    history : bool
        Whether both sides remember what each device sent last. What a device remembers
        is on its disk; the server remembers in memory, and is asked for nothing after
        a restart.
    upload_memory : int, optional
        Most bytes that the server remembers of all devices together; those that took
        part longest ago are forgotten first, and send their next update without it. By
        default an eighth of the memory that this process may use.
    error_feedback : bool
        Whether devices keep what they leave out.
    max_gap : int
        Most phases (a round is two, with evaluation) that a device may be away. One
        that was away longer starts anew: it gives up its residual, and its next
        update stands alone. 0: no limit.
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
        If another one is, or if error feedback would undo the inner strategy's
        clipping.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = CorrelationAware(FedAvg(fraction_train=0.5), density=0.01)

    References
    ----------
    Edin, Kieffer, Johansson and Chen (2026), arXiv:2604.14751. What is theirs and what
    is ours is said in docs/correlation-aware.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        density: float | None = None,
        bits: float = 6.0,
        budget: int = 0,
        allocation: str = "peak",
        history: bool = False,
        upload_memory: int | None = None,
        error_feedback: bool = True,
        max_gap: int = 0,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        if max_gap < 0:
            raise ValueError(f"max_gap must be at least 0, not {max_gap}")
        if max_gap and options.get("max_residual_age"):
            raise ValueError("max_gap sets max_residual_age: pass one of them")
        if max_gap:
            options["max_residual_age"] = max_gap

        def codec(elements: int) -> Codec:
            own = by_size(elements, small=0.4, usual=0.01)
            return CorrelationCodec(
                density=own if density is None else density,
                bits=bits,
                budget=budget,
                memory=history,
                allocation=allocation,
            )

        method = CorrelationMethod(
            codec,
            get_downlink(downlink),
            error_feedback=error_feedback,
            upload_memory=upload_memory if history else 0,
            max_gap=max_gap,
        )
        super().__init__(strategy, method, **options)
