"""Error-bounded uploads, predicted from what each device sent before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.codecs.error_bounded import ErrorBoundedCodec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.methods.bounds import BoundReport

from .compressed import CompressedStrategy
from .downlink import Downlink
from .downlinks import get_downlink
from .method import ServerMethod
from .options import WrapperOptions
from .phase import Device, DevicePlan, Phase, Reply


class ErrorBoundedMethod(ServerMethod):
    """The server's half: remember what devices sent, and check their bounds if asked.

    Parameters
    ----------
    codec : ErrorBounded
        Of the uploads.
    downlink : Downlink
        How the model goes down.
    error_feedback, check_bound : bool
        See `ErrorBounded`.
    upload_memory : int
        Likewise; 0 without history.

    Attributes
    ----------
    error_over_bound : float
        The largest error of an upload so far, over its bound; 0 without checks.
    """

    def __init__(
        self,
        codec: ErrorBoundedCodec,
        downlink: Downlink,
        *,
        error_feedback: bool,
        check_bound: bool,
        upload_memory: int | None,
    ) -> None:
        super().__init__(
            downlink=downlink,
            upload=codec,
            error_feedback=error_feedback,
            upload_memory=upload_memory,
        )
        self.error_over_bound = 0.0
        self._codec = codec
        self._check_bound = check_bound

    def summary(self, layout: Layout | None) -> Sequence[str]:
        """Say what the memory of uploads takes, too."""
        lines = super().summary(layout)
        if layout is None or not self.upload_memory:
            return lines
        size = self._codec.memory_nbytes(layout)
        return (
            f"Upload memory: {size / 1e6:.1f} MB a device, room for "
            f"{self.upload_memory // max(size, 1)} devices",
            *lines,
        )

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Ask devices to check their uploads, if that is wanted."""
        part = "bound_check" if self._check_bound and phase.is_train else ""
        return {d.node_id: DevicePlan(self.upload, part=part) for d in devices}

    def check(self, reply: Reply) -> None:
        """Refuse an upload that is not within its bound."""
        if self._check_bound:
            worst = check_bound(reply.report.part, reply.update)
            self.error_over_bound = max(self.error_over_bound, worst)


class ErrorBounded(CompressedStrategy):
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
    predictor : {"auto", "none", "signed", "paper", "paper_kernels", "all"}
        What updates are predicted by: what is shortest of ours, nothing, or a multiple
        of the device's last one and of their average; the paper's for every
        convolution, with and without its oscillation of signs; what is shortest of all.
    rank : int
        The most outer products that a matrix or convolution of 8,192 elements or more
        is also predicted by, from 0 to 32; a device sends as many as save bytes.
    history : bool
        Whether the server remembers devices. False: every update stands alone, and
        neither side keeps anything of it.
    upload_memory : int, optional
        Most bytes that the server remembers of all devices together; those that took
        part longest ago are forgotten first. A device takes
        `flwr_caesar.codec.codecs.error_bounded.ErrorBoundedCodec.memory_nbytes`. By
        default an eighth of the memory that this process may use.
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
        If a parameter of the codec is out of range.
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
        predictor: str = "auto",
        rank: int = 16,
        history: bool = True,
        upload_memory: int | None = None,
        error_feedback: bool = False,
        check_bound: bool = False,
        downlink: str = "whole",
        **options: Unpack[WrapperOptions],
    ) -> None:
        method = ErrorBoundedMethod(
            ErrorBoundedCodec(
                rel=rel,
                abs_bound=abs_bound,
                exact_below=exact_below,
                predictor=predictor,
                compact=True,
                rank=rank,
            ),
            get_downlink(downlink),
            error_feedback=error_feedback,
            check_bound=check_bound,
            upload_memory=upload_memory if history else 0,
        )
        super().__init__(strategy, method, **options)
        self._method = method

    @property
    def error_over_bound(self) -> float:
        """The largest error of an upload so far, over its bound; 0 without checks."""
        return self._method.error_over_bound


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
    try:
        claim = BoundReport.of(claims)
    except CodecError as err:
        raise CodecError(
            f"the device does not say how far its update is from its bound: {err}"
        ) from err
    if claim.decoded != model_digest(decoded).hex():
        raise CodecError("the update decodes differently here and on the device")
    worst = claim.error_over_bound
    if not 0 <= worst <= 1:
        raise CodecError(f"the update errs by {worst:g} times its bound")
    return worst
