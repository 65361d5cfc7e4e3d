"""The base of every strategy here: another strategy, with its traffic replaced."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from logging import INFO, WARNING
from os import PathLike
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from flwr_caesar.codec import CodecError, apply
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.records import DeviceRecord, RoundRecord
from flwr_caesar.transport import (
    RECORD_KEY,
    DeviceReport,
    arrays_nbytes,
    arrays_to_record,
    record_to_arrays,
)

from .charge import LATE, Charger, Numbers, Work
from .grid import Arrival, StreamingGrid
from .mean import RunningMean, aggregates_a_mean
from .metrics import (
    Signature,
    common_signature,
    read_accuracy,
    read_weight,
    signature,
)
from .nested import weight_key

if TYPE_CHECKING:
    from flwr_caesar.plan import Presence, VirtualClock

NOT_ANSWERED = "no reply before the round closed"


@dataclass(frozen=True)
class Request:
    """What a device was sent in the current phase.

    Parameters
    ----------
    node_id : int
        The node.
    bases : mapping of str to Arrays
        By record name, the server's own arrays that an update is relative to.
    raw_bytes : int
        Bytes of those arrays.
    bytes_down : int
        Bytes of arrays in the message.
    work : Work
        What it was asked to compute.
    """

    node_id: int
    bases: dict[str, Arrays]
    raw_bytes: int
    bytes_down: int
    work: Work


@dataclass(frozen=True)
class Opened:
    """A checked reply: its updates by record name, its bases, weight and content."""

    updates: dict[str, dict[str, Array]]
    bases: dict[str, Arrays]
    weight: float
    content: RecordDict


class WrapperOptions(TypedDict, total=False):
    """Options that every strategy here takes.

    Parameters
    ----------
    on_record : callable
        Called with the RoundRecord of each train and evaluate phase.
    deadline : float
        Seconds after which a phase closes. What arrives later is not applied.
    quorum : float
        Fraction of replies, in ``(0, 1]``, at which a phase closes.
    clock : VirtualClock
        Charge each device for download, training and upload as if it were one of the
        clock's: for simulations. The deadline then counts virtual seconds, and a
        quorum cannot be given.
    presence : Presence
        Which devices can be reached in a round: for simulations. One that the inner
        strategy samples while it is away is not asked.
    checkpoint : path
        Folder for the model, the inner strategy's state and the ledger of devices,
        written after each round. A strategy that is given a folder with a checkpoint
        goes on from it. Of no effect without frames.
    max_residual_age : int
        Give up the residual of a device that was not asked for more than this many
        phases (a round is two, with evaluation). 0, the default, keeps it for ever.
    """

    on_record: Callable[[RoundRecord], None]
    deadline: float
    quorum: float
    clock: VirtualClock
    presence: Presence
    checkpoint: str | PathLike[str]
    max_residual_age: int


class StrategyWrapper(Strategy):
    """Run another Flower strategy over a different wire.

    Sampling, evaluation and the server's optimiser stay the inner strategy's. Replies
    are opened as they arrive; one that is malformed, non-finite or an error is dropped
    with its reason, and the round goes on with the others. A round in which nothing
    valid arrived keeps the model. For an inner strategy that takes a mean (FedAvg,
    FedProx, FedAvgM, FedAdam, …) updates are added up in memory of one model; any
    other is given every update.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    **options
        See `WrapperOptions`.

    Attributes
    ----------
    history : list of RoundRecord
        Every phase so far.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(self, strategy: Strategy, **options: Unpack[WrapperOptions]) -> None:
        self.strategy = strategy
        self.history: list[RoundRecord] = []
        self._on_record = options.get("on_record")
        self._deadline = options.get("deadline")
        self._quorum = options.get("quorum")
        if self._deadline is not None and not self._deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds, not {self._deadline}")
        if self._quorum is not None and not 0 < self._quorum <= 1:
            raise ValueError(f"quorum must be in (0, 1], not {self._quorum}")
        clock = options.get("clock")
        if clock is not None and self._quorum is not None:
            raise ValueError(
                "quorum closes a phase by the real order of replies; leave it out with "
                "a virtual clock, or give a deadline"
            )
        self._numbers = Numbers()
        self._presence = options.get("presence")
        self._charger = None
        if clock is not None:
            self._charger = Charger(clock, self._numbers, deadline=self._deadline)
        self._max_residual_age = options.get("max_residual_age", 0)
        if self._max_residual_age < 0:
            raise ValueError(
                f"max_residual_age must be at least 0, not {self._max_residual_age}"
            )
        self._weight_key = weight_key(strategy)
        self._requests: dict[int, Request] = {}
        self._opened: dict[int, tuple[ArrayRecord, Arrays]] = {}
        self._reports: dict[int, DeviceReport] = {}
        self._phase_start = 0.0
        self._seconds_packing = 0.0
        self._rounds_before = 0
        self._uniform_weights = False

    @abstractmethod
    def _pack(self, node_id: int, content: RecordDict) -> RecordDict:
        """Return the content to send to a node instead of the inner strategy's."""

    @abstractmethod
    def _open_record(
        self, node_id: int, record: ArrayRecord, base: Arrays
    ) -> dict[str, Array]:
        """Return the update to `base` in the record of a node's reply, checked.

        Raises
        ------
        CodecError
            If it is malformed.
        """

    def _base(self, sent: Arrays) -> Arrays:
        """Return what replies are averaged relative to, the same object for equal ones.

        By default the model that was sent.
        """
        return sent

    def _open_phase(
        self, server_round: int, messages: list[Message], *, is_train: bool
    ) -> None:
        """Prepare to pack the messages of a phase."""
        self._phase_start = time.monotonic()
        self._requests = {}
        self._opened = {}
        self._reports = {}

    def _accept(self, node_id: int, content: RecordDict) -> None:
        """Judge a reply before it is opened.

        Raises
        ------
        CodecError
            If it does not count.
        """

    def _withdraw(self, node_id: int, reason: str) -> None:
        """Learn that a reply, accepted or not, is not used."""

    def _weight_of(self, content: RecordDict) -> float:
        """Return the weight of a reply.

        Raises
        ------
        CodecError
            If it has none that is usable.
        """
        return read_weight(content, self._weight_key)

    def _averaged(self, mean: Arrays) -> None:
        """Learn the mean of a round's replies before the inner strategy uses it."""

    def _finished(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model a round ends with, of the one the inner strategy made."""
        return arrays

    def _close_phase(
        self,
        server_round: int,
        arrays: ArrayRecord | None,
        devices: Mapping[int, DeviceRecord],
    ) -> None:
        """End a phase, after which the model is `arrays`; `None` if it is the same."""

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
        """Run federated learning; see `flwr.serverapp.strategy.Strategy.start`.

        If no round had a valid reply, the result holds the initial model.
        """
        before = self._rounds_before
        deadline = None if self._charger else self._deadline
        result = super().start(
            StreamingGrid(grid, deadline=deadline, quorum=self._quorum),
            initial_arrays,
            max(num_rounds - before, 0),
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn and (lambda done, arrays: evaluate_fn(before + done, arrays)),
        )
        result.arrays = result.arrays or initial_arrays
        return result if before == 0 else _shifted(result, before)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        server_round += self._rounds_before
        messages = self.strategy.configure_train(server_round, arrays, config, grid)
        return self._repack(server_round, messages, grid, is_train=True)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        server_round += self._rounds_before
        messages = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return self._repack(server_round, messages, grid, is_train=False)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Open replies as they arrive and let the inner strategy aggregate them."""
        server_round += self._rounds_before
        devices = self._waiting_devices()
        replies = _Waited(replies)
        start = time.monotonic()
        if aggregates_a_mean(self.strategy):
            result = self._aggregate_mean(server_round, replies, devices)
        else:
            result = self._aggregate_all(server_round, replies, devices)
        arrays, metrics = result
        if arrays is not None:
            arrays = self._finished(arrays)
        end = self._settle_times(devices)
        self._close_phase(server_round, arrays, devices)
        busy = time.monotonic() - start - replies.seconds
        self._record(server_round, "train", devices, end, busy)
        return arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Drop unusable replies and let the inner strategy aggregate the others."""
        server_round += self._rounds_before
        devices = self._waiting_devices()
        replies = _Waited(replies)
        start = time.monotonic()
        messages = {}
        for node_id, message, opened in self._open_all(
            server_round, replies, devices, is_train=False
        ):
            message.content = opened.content
            messages[node_id] = message
        agreeing = self._drop_odd_metrics(messages, devices)
        metrics = None
        if agreeing:
            metrics = self.strategy.aggregate_evaluate(server_round, agreeing)
        end = self._settle_times(devices)
        self._close_phase(server_round, None, devices)
        busy = time.monotonic() - start - replies.seconds
        self._record(server_round, "evaluate", devices, end, busy)
        return metrics

    def _tell(
        self,
        server_round: int,
        phase: str,
        messages: list[Message],
        grid: Grid,
        timeout: float,
    ) -> None:
        """Run a phase of our own, which the inner strategy learns nothing of."""
        packed = self._repack(server_round, messages, grid, is_train=False)
        replies = _Waited(grid.send_and_receive(packed, timeout=timeout))
        devices = self._waiting_devices()
        start = time.monotonic()
        for _ in self._open_all(server_round, replies, devices, is_train=False):
            pass
        end = self._settle_times(devices)
        self._close_phase(server_round, None, devices)
        busy = time.monotonic() - start - replies.seconds
        self._record(server_round, phase, devices, end, busy)

    def summary(self) -> None:
        """Log the settings of the inner strategy."""
        log(INFO, "\t├──> Inside: %s", type(self.strategy).__name__)
        self.strategy.summary()

    def _aggregate_mean(
        self,
        server_round: int,
        replies: Iterable[Message],
        devices: dict[int, DeviceRecord],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        mean = RunningMean()
        metrics: list[tuple[Signature, RecordDict]] = []
        for node_id, message, opened in self._open_all(
            server_round, replies, devices, is_train=True
        ):
            reply = message
            if len(opened.updates) != 1:
                self._drop(devices, node_id, "reply has more than one ArrayRecord")
                continue
            ((record_key, update),) = opened.updates.items()
            weight = 1.0 if self._uniform_weights else opened.weight
            mean.add(update, opened.bases[record_key], weight)
            kept = RecordDict(dict(opened.content.metric_records.items()))
            metrics.append((signature(kept), kept))
        if not metrics:
            return None, None
        common = common_signature([sig for sig, _ in metrics])
        agreeing = [content for sig, content in metrics if sig == common]
        arrays = mean.result()
        if not all(np.isfinite(array).all() for array in arrays.values()):
            log(WARNING, "The mean of the updates is not finite: the model is kept")
            return None, None
        self._averaged(arrays)
        reply.content = RecordDict(
            {
                record_key: arrays_to_record(arrays),
                "metrics": MetricRecord({self._weight_key: mean.weight}),
            }
        )
        return self._with_metrics_of(agreeing, server_round, reply)

    def _with_metrics_of(
        self, contents: list[RecordDict], server_round: int, reply: Message
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate one mean reply, but metrics over all the replies behind it."""
        inner = self.strategy
        aggregate = inner.train_metrics_aggr_fn  # type: ignore[attr-defined]
        try:
            inner.train_metrics_aggr_fn = (  # type: ignore[attr-defined]
                lambda _, key: aggregate(contents, key)
            )
            return inner.aggregate_train(server_round, [reply])
        finally:
            inner.train_metrics_aggr_fn = aggregate  # type: ignore[attr-defined]

    def _aggregate_all(
        self,
        server_round: int,
        replies: Iterable[Message],
        devices: dict[int, DeviceRecord],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        messages = {}
        for node_id, message, opened in self._open_all(
            server_round, replies, devices, is_train=True
        ):
            content = opened.content
            for key, update in opened.updates.items():
                content[key] = arrays_to_record(apply(opened.bases[key], update))
            message.content = content
            messages[node_id] = message
        agreeing = self._drop_odd_metrics(messages, devices)
        if not agreeing:
            return None, None
        return self.strategy.aggregate_train(server_round, agreeing)

    def _repack(
        self,
        server_round: int,
        messages: Iterable[Message],
        grid: Grid,
        *,
        is_train: bool,
    ) -> Iterable[Message]:
        start = time.monotonic()
        listed = list(messages)
        if self._charger or self._presence:
            self._numbers.meet(grid.get_node_ids())
        if self._presence:
            numbers = [self._numbers[m.metadata.dst_node_id] for m in listed]
            there = self._presence.present(server_round, numbers)
            listed = [m for m, is_there in zip(listed, there, strict=True) if is_there]
        self._open_phase(server_round, listed, is_train=is_train)
        for message in listed:
            node_id = message.metadata.dst_node_id
            if node_id in self._requests:
                raise ValueError(
                    f"{type(self.strategy).__name__} sends two messages to node "
                    f"{node_id} in one phase; one is supported"
                )
            content = self._pack(node_id, message.content)
            self._requests[node_id] = self._request(node_id, message.content, content)
            message.content = content
        self._seconds_packing = time.monotonic() - start
        return listed

    def _request(
        self, node_id: int, original: RecordDict, content: RecordDict
    ) -> Request:
        bases = {
            key: self._numpy(record) for key, record in original.array_records.items()
        }
        raw = sum(array.nbytes for base in bases.values() for array in base.values())
        work = Work.of(content)
        return Request(node_id, bases, raw, arrays_nbytes(content), work)

    def _numpy(self, record: ArrayRecord) -> Arrays:
        """Return a record's arrays, converted once per phase."""
        if id(record) not in self._opened:
            self._opened[id(record)] = record, record_to_arrays(record)
        return self._opened[id(record)][1]

    def _waiting_devices(self) -> dict[int, DeviceRecord]:
        return {
            node_id: DeviceRecord(
                node_id,
                request.bytes_down,
                batch_size=request.work.batch_size,
                local_steps=request.work.local_steps,
                dropped=NOT_ANSWERED,
            )
            for node_id, request in self._requests.items()
        }

    def _open_all(
        self,
        server_round: int,
        replies: Iterable[Message],
        devices: dict[int, DeviceRecord],
        *,
        is_train: bool,
    ) -> Iterator[tuple[int, Message, Opened]]:
        for reply in replies:
            arrival = _arrival(reply, self._phase_start)
            node_id = arrival.node_id
            device = devices.get(node_id)
            if device is None or device.dropped != NOT_ANSWERED:
                log(WARNING, "Ignored an unexpected reply of node %d", node_id)
                continue
            start = time.monotonic()
            device = replace(device, seconds_round_trip=arrival.seconds)
            message = arrival.message
            if message.has_content():
                device = replace(device, bytes_up=arrays_nbytes(message.content))
            request = self._requests[node_id]
            devices[node_id] = self._charged(server_round, device, 0.0)
            try:
                opened, report = self._open(message, request, is_train)
            # Whatever a hostile reply manages to raise, it costs only itself.
            except Exception as err:
                self._drop(devices, node_id, str(err) or type(err).__name__)
                continue
            samples = request.work.samples(opened.weight, is_train=is_train)
            device = self._charged(server_round, device, samples)
            devices[node_id] = device = replace(
                device,
                dropped="",
                raw_bytes_up=request.raw_bytes if is_train else 0,
                examples=opened.weight,
                accuracy=read_accuracy(opened.content),
                seconds_train=report.train,
                seconds_encode=report.encode,
                seconds_decode=report.decode,
                seconds_start=report.start,
            )
            if self._charger and self._charger.is_late(device):
                self._drop(devices, node_id, LATE)
                continue
            self._reports[node_id] = report
            yield node_id, message, opened
            devices[node_id] = replace(
                devices[node_id], seconds_server=time.monotonic() - start
            )

    def _charged(
        self, server_round: int, device: DeviceRecord, samples: float
    ) -> DeviceRecord:
        if self._charger is None:
            return device
        return self._charger.charge(server_round, device, samples)

    def _open(
        self, message: Message, request: Request, is_train: bool
    ) -> tuple[Opened, DeviceReport]:
        if message.has_error():
            raise CodecError(f"error {message.error.code}: {message.error.reason}")
        content = RecordDict(dict(message.content.items()))
        self._accept(request.node_id, content)
        report = DeviceReport()
        if RECORD_KEY in content:
            report = DeviceReport.from_content(content)
            del content[RECORD_KEY]
        weight = self._weight_of(content)
        updates = {}
        bases = {}
        if is_train:
            if not content.array_records:
                raise CodecError("reply has no ArrayRecord")
            for key, record in content.array_records.items():
                bases[key] = self._base(_base_for(key, request.bases))
                updates[key] = self._open_record(request.node_id, record, bases[key])
                del content[key]
        return Opened(updates, bases, weight, content), report

    def _drop_odd_metrics(
        self, messages: dict[int, Message], devices: dict[int, DeviceRecord]
    ) -> list[Message]:
        signatures = {node: signature(m.content) for node, m in messages.items()}
        common = common_signature(list(signatures.values()))
        for node_id, own in signatures.items():
            if own != common:
                self._drop(
                    devices, node_id, f"metrics {own} differ from the others' {common}"
                )
        return [m for node, m in messages.items() if signatures[node] == common]

    def _drop(
        self, devices: dict[int, DeviceRecord], node_id: int, reason: str
    ) -> None:
        log(WARNING, "Dropped the reply of node %d: %s", node_id, reason)
        self._withdraw(node_id, reason)
        devices[node_id] = replace(devices[node_id], dropped=reason, examples=0.0)

    def _settle_times(self, devices: dict[int, DeviceRecord]) -> float | None:
        """Set how long each device waits for the end; return it if it is virtual."""
        ended = {n: d for n, d in devices.items() if d.seconds_round_trip > 0}
        if self._charger:
            ends = {n: d.virtual_seconds for n, d in ended.items()}
            end = self._charger.end(ended.values())
        else:
            ends = {n: d.seconds_round_trip for n, d in ended.items()}
            end = max(ends.values(), default=0.0)
        for node_id, own in ends.items():
            devices[node_id] = replace(devices[node_id], waiting=max(end - own, 0.0))
        return end if self._charger else None

    def _record(
        self,
        server_round: int,
        phase: str,
        devices: dict[int, DeviceRecord],
        virtual_seconds: float | None,
        seconds_busy: float,
    ) -> None:
        if not devices:
            return
        for device in devices.values():
            if device.dropped == NOT_ANSWERED:
                log(WARNING, "Node %d: %s", device.node_id, NOT_ANSWERED)
        record = RoundRecord(
            server_round,
            phase,
            time.monotonic() - self._phase_start,
            tuple(devices.values()),
            virtual_seconds,
            self._seconds_packing + seconds_busy,
        )
        log(
            INFO,
            "%s: used %d of %d replies, %.2f MB down, %.2f MB up",
            phase,
            len(devices) - len(record.dropped),
            len(devices),
            record.bytes_down / 1e6,
            record.bytes_up / 1e6,
        )
        self.history.append(record)
        self._requests = {}
        if self._on_record:
            self._on_record(record)


class _Waited(Iterator[Message]):
    """Passes replies on and counts the seconds that they were waited for."""

    def __init__(self, replies: Iterable[Message]) -> None:
        self._replies = iter(replies)
        self.seconds = 0.0

    def __next__(self) -> Message:
        start = time.monotonic()
        try:
            return next(self._replies)
        finally:
            self.seconds += time.monotonic() - start


def _arrival(reply: Message | Arrival, start: float) -> Arrival:
    if isinstance(reply, Arrival):
        return reply
    return Arrival(reply.metadata.src_node_id, reply, time.monotonic() - start)


def _base_for(key: str, bases: dict[str, Arrays]) -> Arrays:
    if key in bases:
        return bases[key]
    if len(bases) == 1:
        return next(iter(bases.values()))
    raise CodecError(f"reply's ArrayRecord {key!r} is not one that was sent")


def _shifted(result: Result, before: int) -> Result:
    """Count the rounds of a resumed run from the first."""
    for name in (
        "train_metrics_clientapp",
        "evaluate_metrics_clientapp",
        "evaluate_metrics_serverapp",
    ):
        metrics = getattr(result, name)
        setattr(result, name, {before + done: m for done, m in metrics.items()})
    return result
