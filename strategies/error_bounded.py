"""Error-bounded uploads, predicted from what each device sent before."""

from __future__ import annotations

from collections.abc import Mapping
from logging import INFO
from typing import Any, Unpack

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from flwr_caesar.clients.bound_check import DECODED, ERROR_OVER_BOUND
from flwr_caesar.codec import CodecError
from flwr_caesar.codec.digest import model_digest
from flwr_caesar.codec.error_bounded import ErrorBounded as ErrorBoundedCodec
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.transport import DeviceReport

from .downlinks import get_downlink
from .framed import DevicePlan, FramedStrategy
from .wrapper import WrapperOptions


class ErrorBounded(FramedStrategy):
    """Updates in which every element is within a bound of what was computed.

    Each device's update is predicted from its own earlier ones, as the server decoded
    them; both sides remember those, and a device that the server has forgotten sends
    its next update without prediction. What a device remembers is on its disk; what the
    server remembers is in memory and lost at a restart.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    rel : float
        Bound as a fraction of each tensor's range, ``max - min``, in ``(0, 1)``.
    abs_bound : float
        Bound in units of the update, the same for all tensors and rounds; used instead
        of `rel` if not 0.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    history : bool
        Whether the server remembers devices. False: every update stands alone, and
        neither side keeps anything of it.
    upload_memory : int
        Most bytes that the server remembers of all devices together; those that took
        part longest ago are forgotten first. A device takes
        `flwr_caesar.codec.error_bounded.ErrorBounded.memory_nbytes`.
    error_feedback : bool
        Whether devices keep what the bound let go and add it to their next update; the
        bound is then on their sum.
    check_bound : bool
        For debugging: each device decodes its own upload and reports the largest error
        over the bound and a digest of the decoded values. A reply whose error is above
        its bound, or that decodes differently on the server, is not applied.
    downlink : {"whole", "lattice"}
        How the model goes down: exactly, or rounded to published points, of which a
        device gets the change since the one it holds, in a few bits an element.
    **options
        See `WrapperOptions`.

    Attributes
    ----------
    error_over_bound : float
        With `check_bound`, the largest error of any upload opened so far, in units of
        its bound.

    Raises
    ------
    CodecError
        If a parameter of the bound is out of range.
    ValueError
        If another parameter is.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = ErrorBounded(FedAvg(), rel=1e-2)

    References
    ----------
    Ye et al. (2025), arXiv:2511.05770. What is theirs and what is ours is said in
    docs/error-bounded.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        rel: float = 1e-2,
        abs_bound: float = 0.0,
        exact_below: int = 1024,
        history: bool = True,
        upload_memory: int = 1 << 30,
        error_feedback: bool = False,
        check_bound: bool = False,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        self._codec = ErrorBoundedCodec(
            rel=rel, abs_bound=abs_bound, exact_below=exact_below
        )
        super().__init__(
            strategy,
            downlink=get_downlink(downlink),
            upload=self._codec,
            error_feedback=error_feedback,
            upload_memory=upload_memory if history else 0,
            **options,
        )
        self.error_over_bound = 0.0
        self._history = upload_memory if history else 0
        self._check_bound = check_bound
        self._claims: dict[int, Mapping[str, Any]] = {}

    def summary(self) -> None:
        """Log the codecs, and what the memory of uploads takes."""
        if self._layout is not None and self._history:
            size = self._codec.memory_nbytes(self._layout)
            log(
                INFO,
                "\t├──> Upload memory: %.1f MB a device, room for %d devices",
                size / 1e6,
                self._history // max(size, 1),
            )
        super().summary()

    def _plan_phase(
        self, server_round: int, node_ids: list[int], *, is_train: bool
    ) -> dict[int, DevicePlan]:
        part = "bound_check" if self._check_bound and is_train else ""
        return {node_id: DevicePlan(self.upload, part=part) for node_id in node_ids}

    def _accept(self, node_id: int, content: RecordDict) -> None:
        super()._accept(node_id, content)
        if self._check_bound and self._is_train:
            self._claims[node_id] = DeviceReport.from_content(content).part

    def _open_record(
        self, node_id: int, record: ArrayRecord, base: Arrays
    ) -> dict[str, Array]:
        decoded = super()._open_record(node_id, record, base)
        if self._check_bound:
            worst = check_bound(self._claims.pop(node_id, {}), decoded)
            self.error_over_bound = max(self.error_over_bound, worst)
        return decoded


def check_bound(claims: Mapping[str, Any], decoded: Arrays) -> float:
    """Return the error over the bound that a device measured in an upload.

    Parameters
    ----------
    claims : mapping
        What `flwr_caesar.clients.bound_check.BoundCheck` reported.
    decoded : mapping of str to ndarray
        What the server decoded.

    Raises
    ------
    CodecError
        If there is no such report, the device decoded other values, or the error is
        above the bound.
    """
    worst, digest = claims.get(ERROR_OVER_BOUND), claims.get(DECODED)
    if not isinstance(worst, (int, float)) or not isinstance(digest, str):
        raise CodecError("the device does not say how far its update is from its bound")
    if digest != model_digest(decoded).hex():
        raise CodecError("the update decodes differently here and on the device")
    if not 0 <= worst <= 1:
        raise CodecError(f"the update errs by {worst:g} times its bound")
    return float(worst)
