"""FedComLoc: control variates, compressed models, and a sum that stays zero."""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any, Unpack

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from flwr_caesar.codec import Codec, CodecError, get_codec
from flwr_caesar.codec.layout import FLOAT_DTYPES, Arrays
from flwr_caesar.records import DeviceRecord
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import (
    EVALUATE,
    MEAN_KEY,
    SETTLE,
    TRAIN,
    arrays_to_record,
    frame_to_record,
    record_to_arrays,
)

from .compressed_downlink import CompressedDownlink
from .framed import DevicePlan, FramedStrategy, cast_like
from .grid import StreamingGrid
from .mean import aggregates_a_mean
from .wrapper import WrapperOptions

VARIANTS = ("com", "local", "global")
STEPS = ("geometric", "fixed")
_PART = "control_variates"
_SETTLE_ATTEMPTS = 2
_FACTS = struct.Struct("<QI?")


class FedComLoc(FramedStrategy):
    """Local training with control variates, and models that are compressed.

    All devices of a round take the same number of local steps ``x - lr (g - h)``. The
    control variate ``h`` of a device corrects its drift from the others; it is moved by
    ``(p / lr) (mean - sent)`` when the mean of the models is known, for which the
    devices of a round are sent it right after the aggregation, in a phase of its own
    (``"settle"``). The sum of all ``h`` is then zero. What would break that (a device
    that lost its state, or was not reached to settle) begins a new control epoch: every
    device sets its ``h`` to 0 before it trains again.

    Weights are uniform. The app's training needs one line
    (`flwr_caesar.clients.fedcomloc.fedcomloc`), plain SGD and the same `lr`.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy. With `control` it must take a mean of the replies.
    lr : float
        Step size of the devices' SGD.
    variant : {"com", "local", "global"}
        What is compressed: the model that a device sends, the one at which it takes
        gradients, or the one that the server sends, under error feedback.
    density : float
        Fraction of each tensor that is kept, the largest magnitudes, in ``(0, 1]``.
    bits : int
        1 to 16: round what is kept to ``2**bits`` levels of its Euclidean norm,
        unbiased. 32: do not.
    bucket : int, optional
        Consecutive elements of a tensor that share that norm, which costs 32 bits; 0:
        all of a tensor, with which few bits diverge. By default `default_bucket`, of
        elements that are kept.
    values : {"float16", "float32"}
        Precision of the elements kept, without rounding to levels.
    exact_below : int
        Tensors of fewer elements are not compressed. An output layer of a few thousand
        costs little to send, and much accuracy to thin out.
    p : float
        Probability of a communication after a step, in ``(0, 1]``.
    steps : {"geometric", "fixed"}
        Local steps of a round: drawn for all devices with mean ``1 / p``, or that
        number, rounded.
    control : bool
        False: no control variates and nothing to settle. With ``variant="com"`` that is
        federated averaging of sparse models.
    seed : int
        Of the draws.
    **options
        See `WrapperOptions`.

    Attributes
    ----------
    resets : int
        Control epochs that this server had to begin anew.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the inner strategy takes no mean.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = FedComLoc(FedAvg(fraction_train=0.1), lr=0.05, density=0.3)

    References
    ----------
    Yi et al. (2024), FedComLoc, arXiv:2403.09904. Mishchenko et al. (2022), ProxSkip,
    arXiv:2202.09357. What is theirs and what is ours is said in docs/fedcomloc.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        lr: float,
        variant: str = "com",
        density: float = 1.0,
        bits: int = 32,
        bucket: int | None = None,
        values: str = "float16",
        exact_below: int = 1024,
        p: float = 0.1,
        steps: str = "geometric",
        control: bool = True,
        seed: int = 0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}")
        if steps not in STEPS:
            raise ValueError(f"steps must be one of {', '.join(STEPS)}")
        if not lr > 0:
            raise ValueError(f"lr must be above 0, not {lr}")
        if not 0 < p <= 1:
            raise ValueError(f"p must be in (0, 1], not {p}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        if control and not aggregates_a_mean(strategy):
            raise ValueError(
                f"control variates need the mean of the models, and "
                f"{type(strategy).__name__} takes none: set control to false"
            )
        codec = model_codec(
            density=density,
            bits=bits,
            bucket=bucket,
            values=values,
            exact_below=exact_below,
        )
        self._compressed = CompressedDownlink(codec) if variant == "global" else None
        super().__init__(
            strategy,
            downlink=self._compressed,
            upload=codec if variant == "com" else None,
            payload=MODEL_PAYLOAD,
            **options,
        )
        self._uniform_weights = True
        self._support_codec = model_codec(
            density=density, bits=32, values="float32", exact_below=exact_below
        )
        lossy = variant == "local" and codec.id != "dense"
        self._local = json.dumps(codec.config) if lossy else ""
        self._lr, self._p, self._steps, self._seed = lr, p, steps, seed
        self._control = control
        self._epoch = _new_epoch()
        self._phase = TRAIN
        self._facts: dict[int, _Facts] = {}
        self._owing: list[int] = []
        self._mean: Arrays = {}
        self._mean_record: ArrayRecord | None = None
        self._grid: Grid | None = None
        self._timeout = 0.0
        self.resets = 0

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run federated learning; see `FramedStrategy.start`."""
        deadline = None if self._charger else self._deadline
        self._grid = StreamingGrid(grid, deadline=deadline)
        self._timeout = timeout
        return super().start(
            grid,
            initial_arrays,
            num_rounds,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `StrategyWrapper.configure_train`."""
        self._phase = TRAIN
        return super().configure_train(server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `StrategyWrapper.configure_evaluate`."""
        self._phase = EVALUATE
        return super().configure_evaluate(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate, then let the devices whose models were used settle."""
        result = super().aggregate_train(server_round, replies)
        if self._control and self._owing:
            self._settle(self._rounds_before + server_round)
        return result

    def local_steps(self, server_round: int) -> int:
        """Return the local steps of all devices in a round."""
        if self._steps == "fixed":
            return round(1 / self._p)
        rng = np.random.default_rng([self._seed, server_round])
        return int(rng.geometric(self._p))

    def _plan_phase(
        self, server_round: int, node_ids: list[int], *, is_train: bool
    ) -> dict[int, DevicePlan]:
        assert self._session is not None
        rows = {node_id: self._session.row(node_id) for node_id in node_ids}
        self._facts = {
            node_id: _Facts.of(row.facts) for node_id, row in rows.items() if row
        }
        config: dict[str, Any] = {}
        if self._phase == TRAIN:
            config = {"local-steps": self.local_steps(server_round), "lr": self._lr}
            if self._local:
                config["compress"] = self._local
        settings: dict[str, Any] = {}
        if self._control:
            settings = {"epoch": self._epoch, "phase": self._phase}
        if self._phase == SETTLE:
            settings |= {"p": self._p, "lr": self._lr}
            if self._compressed:
                settings["support"] = True
        plan = DevicePlan(
            self.upload,
            config,
            settings,
            part=_PART if self._control else "",
            call_app=self._phase != SETTLE,
        )
        return dict.fromkeys(node_ids, plan)

    def _pack(self, node_id: int, content: RecordDict) -> RecordDict:
        packed = super()._pack(node_id, content)
        if self._phase == SETTLE and self._mean_record is not None:
            packed[MEAN_KEY] = self._mean_record
        return packed

    def _weight_of(self, content: RecordDict) -> float:
        return 0.0 if self._phase == SETTLE else super()._weight_of(content)

    def _averaged(self, mean: Arrays) -> None:
        self._mean = mean

    def _finished(self, arrays: ArrayRecord) -> ArrayRecord:
        if self._compressed is None:
            return arrays
        model = record_to_arrays(arrays)
        if self._layout:
            model = cast_like(self._layout, model)
        return arrays_to_record(self._compressed.compress(model))

    def _close_phase(
        self,
        server_round: int,
        arrays: ArrayRecord | None,
        devices: Mapping[int, DeviceRecord],
    ) -> None:
        if self._phase == TRAIN:
            self._owing = []
            if self._session is not None and arrays is not None:
                self._owing = sorted(self._session.accepted)
        super()._close_phase(server_round, arrays, devices)

    def _learn(self, server_round: int, devices: Mapping[int, DeviceRecord]) -> None:
        """Find who broke the sum, and write down who owes a settlement or paid it."""
        session = self._session
        if session is None or not self._control:
            return
        broken = {n: why for n in self._headers if (why := self._why_broken(n))}
        before = self._epoch
        if broken:
            self._reset(next(iter(broken.values())))
        for node_id in broken:  # so that a server that is restarted now resets too
            session.note(node_id, _Facts(before, owes=True).pack())
        if self._phase == TRAIN:
            for node_id in self._owing:
                facts = self._known(node_id)
                session.note(node_id, replace(facts, owes=True).pack())
        elif self._phase == SETTLE and not broken:
            for node_id, report in self._reports.items():
                owed = self._known(node_id)
                paid = owed.paid()
                if owed.owes and report.part == paid.report:
                    session.note(node_id, paid.pack())
                    self._owing.remove(node_id)

    def _known(self, node_id: int) -> _Facts:
        """Return what a device should have in this epoch."""
        row = self._session.row(node_id) if self._session else None
        facts = _Facts.of(row.facts) if row else _Facts()
        return facts if facts.epoch == self._epoch else _Facts(self._epoch)

    def _why_broken(self, node_id: int) -> str:
        assert self._session is not None
        row = self._session.row(node_id)
        expected = self._headers[node_id].device
        if row is None:
            return ""
        if expected and row.device != expected:
            lost = self._facts.get(node_id, _Facts())
            if lost.epoch == self._epoch and (lost.settled or lost.owes):
                return f"the device at node {node_id} has lost its control variates"
        report = self._reports.get(node_id)
        facts = self._known(node_id)
        allowed = [facts.report]
        if self._phase == SETTLE:
            allowed.append(facts.paid().report)
        if report is None or report.part in allowed:
            return ""
        return f"the device at node {node_id} has other control variates than it had"

    def _reset(self, reason: str) -> None:
        log(WARNING, "All control variates start from 0 again: %s", reason)
        self._epoch = _new_epoch()
        self.resets += 1

    def _capture(self) -> StrategyState:
        state = super()._capture()
        return StrategyState({**state.tree, "epoch": self._epoch}, state.arrays)

    def _restore(self, state: StrategyState) -> None:
        super()._restore(state)
        epoch = state.tree.get("epoch")
        if not isinstance(epoch, int):
            raise DamagedStateError("the checkpoint is not FedComLoc's: no epoch")
        self._epoch = epoch
        facts = [_Facts.of(data) for data in self._ledger.facts().values()]
        if any(known.owes and known.epoch == epoch for known in facts):
            self._reset("the server was stopped before all devices had settled")

    def _settle(self, server_round: int) -> None:
        """Tell the devices whose models were used what the mean is."""
        assert self._grid is not None
        assert self._model is not None
        self._phase = SETTLE
        self._mean_record = self._mean_apart()
        epoch = self._epoch
        for _ in range(_SETTLE_ATTEMPTS):
            messages = [
                Message(
                    RecordDict({"arrays": self._model, "config": ConfigRecord()}),
                    dst_node_id=node_id,
                    message_type=MessageType.TRAIN,
                )
                for node_id in self._owing
            ]
            self._tell(server_round, SETTLE, messages, self._grid, self._timeout)
            if not self._owing or self._epoch != epoch:
                return
        self._reset(f"{len(self._owing)} devices could not be reached to settle")

    def _mean_apart(self) -> ArrayRecord | None:
        """Return the mean for devices that cannot tell it from the model they get."""
        assert self._model is not None
        assert self._layout is not None
        mean, model = cast_like(self._layout, self._mean), record_to_arrays(self._model)
        if self._compressed is None:
            floats = [n for n, a in mean.items() if a.dtype.name in FLOAT_DTYPES]
            if all(np.array_equal(mean[name], model[name]) for name in floats):
                return None
            return frame_to_record(get_codec("dense").encode(mean)[0])
        known = {
            name: np.where(model[name] != 0, array, np.zeros_like(array))
            for name, array in mean.items()
        }
        return frame_to_record(self._support_codec.encode(known)[0])


def model_codec(
    *,
    density: float,
    bits: int,
    bucket: int | None = None,
    values: str = "float16",
    exact_below: int = 1024,
) -> Codec:
    """Return FedComLoc's compressor ``C`` as a codec: what it decodes to is ``C(x)``.

    Parameters
    ----------
    density, bits, bucket, values, exact_below
        See `FedComLoc`. Below density 1 it is TopK; below 32 bits ``Q_r``, of what TopK
        kept if there is both; with neither, exact.

    Raises
    ------
    CodecError
        If one is out of range.
    """
    both = {"density": density, "exact_below": exact_below}
    kept = get_codec({"id": "topk", "values": values, **both})
    if bits == 32:
        return get_codec("dense") if density == 1 else kept
    if not isinstance(bits, int) or not 1 <= bits <= 16:
        raise CodecError(f"bits must be 1 to 16, or 32 for none, not {bits}")
    if bucket is None:
        bucket = round(default_bucket(bits) / density)
    levels = {"levels": 1 << bits, "norm": "l2", "bucket": bucket}
    return get_codec({"id": "qsgd", **levels, **both})


def default_bucket(bits: int) -> int:
    """Return how many elements should share a norm at so many bits.

    The squared error of rounding `n` elements of like size is about
    ``n / (6 * 4^bits)`` of their own square. With ``4^bits / 32`` of them it is 0.5 %.
    A norm of fewer than 64 would cost more than half a bit for each: at 4 bits the
    error is 4 %, which the mean over some devices makes small. Below, it is 16.
    """
    return max(64 if bits >= 4 else 16, (1 << 2 * bits) // 32)


@dataclass(frozen=True)
class _Facts:
    """What the server knows of a device's control variates.

    Parameters
    ----------
    epoch : int
        In which it knows it.
    settled : int
        How often they were moved.
    owes : bool
        Whether a model of the device was used and it has not settled since.
    """

    epoch: int = 0
    settled: int = 0
    owes: bool = False

    @classmethod
    def of(cls, data: bytes) -> _Facts:
        return cls(*_FACTS.unpack(data)) if len(data) == _FACTS.size else cls()

    def pack(self) -> bytes:
        return _FACTS.pack(self.epoch, self.settled, self.owes)

    def paid(self) -> _Facts:
        return _Facts(self.epoch, self.settled + self.owes)

    @property
    def report(self) -> dict[str, int]:
        """What such a device reports."""
        return {"epoch": self.epoch, "settled": self.settled}


def _new_epoch() -> int:
    return secrets.randbits(62) | 1
