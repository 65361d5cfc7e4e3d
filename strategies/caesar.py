"""Caesar: precision where staleness and importance are high, batches that fit."""

from __future__ import annotations

from typing import Any, Unpack

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec.predictors.outer_products import MAX_RANK

from .caesar_lattice import CaesarLattice
from .caesar_paper import CaesarPaper
from .caesar_plan import Importance, Workload
from .compressed import CompressedStrategy
from .lattice_downlink import LatticeDownlink
from .method import ServerMethod
from .options import WrapperOptions

CODECS = ("lattice", "paper")
AUTO = "auto"


class Caesar(CompressedStrategy):
    """Staleness sets the download, importance the upload, speed the batch size.

    After the inner strategy has sampled a round's devices, each gets a plan of its
    own. With ``codec="paper"`` it is the paper's: a model of which a staler device
    gets more weights exactly and recovers the rest from its own last model; the
    largest elements of the update, more of them from a device of more and more even
    data; uniform weights. With ``codec="lattice"``, the default, the same plan sets
    the rate of an entropy-coded upload under error feedback, and the download is the
    exact difference between two published lattice points, which costs the more bits
    the staler a device is by itself.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    codec : {"lattice", "paper"}
        What travels.
    rate : float or "auto"
        ``lattice``: mean bits an element of an upload. ``"auto"``, the default, asks
        for a squared error of a tenth of the update's square, or less for a small model
        (`flwr_caesar.plan.precision`).
    nmse : float, optional
        ``lattice``: in place of `rate`, the squared error of an upload relative to its
        square, above 0 and below 1.
    rate_spread : float
        ``lattice``: the most important device sends `rate_spread` squared times the
        bits of the least important one; 1: all alike.
    step_sigmas : float, optional
        ``lattice``: largest step of a published model in deviations of what changed
        since the model that devices mostly hold; larger: fewer bytes down. By default
        2.83, a squared error of at most two thirds of that change's square and about a
        third on average, and down to 1.1 for a small model.
    first_bits : int
        ``lattice``: precision of the first model, in bits below the root mean square of
        each tensor. 6 suits a trained model; a random one needs 0, which makes whole
        models for new devices several times smaller.
    shared_start : bool
        ``lattice``: whether new devices build the initial model locally instead of
        downloading it. All of them then need ``CompressionMod(initial=...)``: one
        without it loses its first round.
    max_versions : int
        ``lattice``: published models that are remembered. A device that holds an older
        one gets a whole model.
    versions_memory : int, optional
        ``lattice``: most bytes of memory that they take; by default an eighth of what
        this process may use. The log and the report say where fewer fit.
    upload_memory : int
        ``lattice``: most bytes that the server spends on the last update of devices,
        two an element each, by which both sides then code the next one; devices keep
        theirs. 0: none.
    rank : int
        ``lattice``: the most outer products that an upload tells of a matrix or
        convolution of 8,192 elements or more, from 0 to 32: what its rows share. A
        device sends as many as save bytes.
    theta_max : float
        ``paper``: largest fraction of a downloaded model that is reduced to signs.
    theta_upload_min : float
        Fraction of its update that the most important device drops.
    theta_upload_max : float
        Fraction of its update that the least important device drops.
    clusters : int
        ``paper``: most compressed models made in a round.
    staleness_aware : bool
        ``paper``: False sends all devices of a round the mean of the ratios that they
        would have got: the control.
    importance_aware : bool
        False lets all devices upload at the mean of what they would have: the control.
    resend_lost : bool
        ``paper``: whether a device adds an upload that was lost, or did not count, to
        its next one. False: it is gone, as published.
    exact_below : int
        Tensors of fewer elements are sent exactly; `None`: 1,024 for ``paper`` and 0
        for ``lattice``, which codes small ones on a finer lattice instead.
    local_steps : int, optional
        Steps that each device trains in a round, whatever its batch size. If given,
        Caesar sets batch sizes; `None` leaves both to the app.
    max_batch : int
        Largest batch size, for the fastest device; the others get what lets them finish
        with it.
    min_batch : int, optional
        Smallest batch size; by default 8, or `max_batch` if that is less. Equal to
        `max_batch`: the same for all.
    round_seconds : float
        Seconds in which a round should end: each device then gets the best rate
        (``lattice``) and batch size that fit its link and its compute. 0: no limit.
    ask_labels : bool
        Whether to ask a new device once for its label counts. One that declines
        is ranked by the number of its examples alone.
    **options
        See `WrapperOptions`.

    Raises
    ------
    ValueError
        If a parameter is out of range, or has no effect with the chosen codec.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = Caesar(FedAvg(fraction_train=0.1))

    References
    ----------
    Yan et al. (2024), arXiv:2412.19989. What is theirs and what is ours is said in
    docs/caesar.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        codec: str = "lattice",
        rate: float | str | None = AUTO,
        nmse: float | None = None,
        rate_spread: float = 1.5,
        step_sigmas: float | None = None,
        first_bits: int = 6,
        shared_start: bool = False,
        max_versions: int = 100,
        versions_memory: int | None = None,
        upload_memory: int = 0,
        rank: int = 16,
        theta_max: float = 0.6,
        theta_upload_min: float = 0.1,
        theta_upload_max: float = 0.6,
        clusters: int = 4,
        staleness_aware: bool = True,
        importance_aware: bool = True,
        resend_lost: bool = True,
        exact_below: int | None = None,
        local_steps: int | None = None,
        max_batch: int = 32,
        min_batch: int | None = None,
        round_seconds: float = 0.0,
        ask_labels: bool = True,
        **options: Unpack[WrapperOptions],
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, not {codec!r}")
        lattice: dict[str, Any] = {
            "step_sigmas": step_sigmas,
            "first_bits": first_bits,
            "shared_start": shared_start,
            "max_versions": max_versions,
            "versions_memory": versions_memory,
        }
        memory = {"upload_memory": upload_memory, "rank": rank}
        if upload_memory < 0:
            raise ValueError(f"upload_memory must be at least 0, not {upload_memory}")
        if not 0 <= rank <= MAX_RANK:
            raise ValueError(f"rank must be 0 to {MAX_RANK}, not {rank}")
        rate = AUTO if rate is None else rate
        _check_target(rate, nmse)
        rates = {"rate": rate, "nmse": nmse, "rate_spread": rate_spread}
        paper: dict[str, Any] = {
            "theta_max": theta_max,
            "clusters": clusters,
            "staleness_aware": staleness_aware,
            "resend_lost": resend_lost,
        }
        is_paper = codec == "paper"
        _refuse_changed({**lattice, **rates, **memory} if is_paper else paper, codec)
        importance = Importance(
            theta_min=theta_upload_min,
            theta_max=theta_upload_max,
            is_used=importance_aware,
            ask_labels=ask_labels,
        )
        workload = Workload(
            local_steps=local_steps,
            max_batch=max_batch,
            min_batch=min(8, max_batch) if min_batch is None else min_batch,
            round_seconds=round_seconds,
        )
        method: ServerMethod
        if is_paper:
            method = CaesarPaper(
                importance,
                workload,
                **paper,
                exact_below=1024 if exact_below is None else exact_below,
            )
        else:
            small = exact_below or 0
            method = CaesarLattice(
                LatticeDownlink(
                    step_sigmas=step_sigmas,
                    shared_start=shared_start,
                    first_bits=first_bits,
                    exact_below=small,
                    max_versions=max_versions,
                    max_bytes=versions_memory,
                ),
                importance,
                workload,
                rate=None if isinstance(rate, str) or nmse else rate,
                nmse=nmse,
                rate_spread=rate_spread,
                exact_below=small,
                upload_memory=upload_memory,
                rank=rank,
            )
        super().__init__(strategy, method, **options)


def _check_target(rate: float | str, nmse: float | None) -> None:
    """Refuse what is no target of an upload, or two of them."""
    if isinstance(rate, str) and rate != AUTO:
        raise ValueError(f"rate must be a number of bits or {AUTO!r}, not {rate!r}")
    if nmse is None:
        return
    if not 0 < nmse < 1:
        raise ValueError(f"nmse must be above 0 and below 1, not {nmse}")
    if rate != AUTO:
        raise ValueError(f"give a rate or an nmse, not both: {rate} and {nmse}")


def _refuse_changed(others: dict[str, Any], codec: str) -> None:
    """Refuse a setting of the other codec, if it is not its default."""
    defaults = Caesar.__init__.__kwdefaults__ or {}
    for name, value in others.items():
        if value != defaults[name]:
            raise ValueError(f"{name} has no effect with codec {codec!r}: leave it out")
