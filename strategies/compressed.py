"""Flower's face: another strategy, with its traffic replaced."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from logging import INFO, WARNING
from typing import Any, Unpack

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

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import ErrorCode, log
from flwr_caesar.records import RoundRecord
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.strategy_state import Learned
from flwr_caesar.transport import (
    EVALUATE,
    FRAME_STYPE,
    TRAIN,
    message_nbytes,
    record_to_arrays,
    widened_record,
)

from .aggregate import Aggregator
from .charge import Charger, DeviceIndex
from .errors import TrainingFailedError
from .exchange import (
    Exchange,
    NotNowError,
    most_frame_bytes,
    require_one_message_each,
    require_size,
)
from .framed import NO_MOD, FrameExchange
from .grid import Arrival, StreamingGrid
from .guard import Bench
from .inner import needs_weights, require_strategy, standing_in
from .method import ServerMethod
from .metrics import disagreeing
from .options import Options, WrapperOptions
from .phase import ExtraPhase, Phase, Reply
from .plain import PlainExchange
from .privacy import require_clipped_uploads, require_no_accountant
from .recorder import Recorder

_KEPT_BYTES = 256 << 20
_NOT_OF_THE_DEVICE = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
    }
)


class CompressedStrategy(Strategy):
    """Run another Flower strategy over a compressed wire.

    Sampling, evaluation and the server's optimiser stay the inner strategy's, and so
    do its other methods and attributes, which are reachable here. What travels is the
    method's. Replies are opened as they arrive; one that is malformed, non-finite or an
    error is dropped with its reason, and the round goes on with the others. For an
    inner strategy that takes a mean (FedAvg, FedProx, FedAvgM, FedAdam, …) updates are
    added up in memory of one model; any other is given every update. What comes out is
    checked before anything is committed. A round in which nothing valid arrived keeps
    the model.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    method : ServerMethod, optional
        What travels, and who is asked for what; by default exact frames both ways.
    **options
        See `WrapperOptions`.

    Attributes
    ----------
    strategy : Strategy
        The inner strategy.
    method : ServerMethod or None
        `None` where plain arrays travel.

    Raises
    ------
    TypeError
        If the inner strategy cannot be wrapped, or there is no such option.
    ValueError
        If an option is out of range, or the method does not fit the inner strategy.
    """

    def __init__(
        self,
        strategy: Strategy,
        method: ServerMethod | None = None,
        **options: Unpack[WrapperOptions],
    ) -> None:
        self._set_up(strategy, method or ServerMethod(), options)

    def _set_up(
        self,
        strategy: Strategy,
        method: ServerMethod | None,
        options: Mapping[str, Any],
    ) -> None:
        require_strategy(strategy, type(self).__name__)
        own = type(self).__init__.__kwdefaults__ or {}
        chosen = Options.of(options, owner=type(self), own=own)
        self.strategy = strategy
        self.method = method
        self._options = chosen
        self._numbers = DeviceIndex()
        charger = None
        if chosen.clock is not None:
            charger = Charger(chosen.clock, self._numbers, deadline=chosen.deadline)
        self._recorder = Recorder(chosen.on_record, charger)
        self._exchange: Exchange
        if method is None:
            if chosen.max_residual_age:
                raise ValueError("max_residual_age has no effect: no residual is kept")
            self._exchange = PlainExchange(strategy)
        else:
            require_clipped_uploads(
                strategy, error_feedback=method.error_feedback, payload=method.payload
            )
            method.require(strategy)
            self._exchange = FrameExchange(
                strategy, method, max_residual_age=chosen.max_residual_age
            )
        self._aggregator = Aggregator(
            strategy,
            chosen.guard,
            uniform=method is not None and method.uniform_weights,
        )
        self._bench = Bench(chosen.guard)
        self._phase = Phase("", 0)
        self._rounds_before = 0
        self._failed_rounds = 0
        self._learned: Learned | None = None
        self._grid: StreamingGrid | None = None
        self._timeout = 0.0

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the inner strategy, where this has none."""
        if name.startswith("_") or "strategy" not in vars(self):
            raise AttributeError(name)
        return getattr(self.strategy, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the inner strategy, where it has one of that name."""
        own = name.startswith("_") or name in ("strategy", "method")
        if own or hasattr(type(self), name) or not hasattr(self.strategy, name):
            super().__setattr__(name, value)
        else:
            setattr(self.strategy, name, value)

    @property
    def history(self) -> list[RoundRecord]:
        """Every phase so far."""
        return self._recorder.history

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        **more: Any,
    ) -> Result:
        """Run federated learning; see `flwr.serverapp.strategy.Strategy.start`.

        With a checkpoint it goes on from there, and `num_rounds` counts from the first
        round of the history: a run of ten rounds that was stopped after six does four
        more. If no round had a valid reply, the result holds the initial model.

        Parameters
        ----------
        grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config
            See Flower's `Strategy.start`.
        evaluate_fn : callable, optional
            Likewise.
        **more
            What else the installed Flower's `start` takes, or that of the inner
            strategy, which is called if it has one of its own.

        Raises
        ------
        TrainingFailedError
            If devices reply and none of their replies can be used; see
            `WrapperOptions`.
        StateError
            If the checkpoint cannot be trusted, or another server uses it.
        ValueError
            If a privacy accountant would begin anew after the checkpoint.
        """
        with ExitStack() as stack:
            first = self._resume(stack, initial_arrays)
            before = self._rounds_before
            options = self._options
            deadline = None if options.clock else options.deadline
            self._grid = StreamingGrid(grid, deadline=deadline, quorum=options.quorum)
            self._timeout = timeout
            self._failed_rounds = 0
            try:
                given = {
                    "timeout": None if timeout == 3600 else timeout,
                    "train_config": train_config,
                    "evaluate_config": evaluate_config,
                    "evaluate_fn": evaluate_fn
                    and (lambda done, arrays: evaluate_fn(before + done, arrays)),
                    **more,
                }
                result = self._leader()(
                    self._grid,
                    first,
                    max(num_rounds - before, 0),
                    # A loop of the inner strategy's own may take less.
                    **{name: v for name, v in given.items() if v is not None},
                )
            finally:
                self._grid = None
        result.arrays = result.arrays or first
        return result if before == 0 else _shifted(result, before)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        self._require_outermost()
        number = server_round + self._rounds_before
        messages = self.strategy.configure_train(number, arrays, config, grid)
        return self._open(Phase(TRAIN, number), messages, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        self._require_outermost()
        number = server_round + self._rounds_before
        messages = self.strategy.configure_evaluate(number, arrays, config, grid)
        return self._open(Phase(EVALUATE, number), messages, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Open replies as they arrive and let the inner strategy aggregate them."""
        phase, waited = self._phase, _Waited(replies)
        start = time.monotonic()
        model, metrics = self._aggregator.run(
            phase,
            self._read_all(phase, waited),
            decode_again=lambda reply: self._exchange.decode_again(phase, reply),
            refuse=lambda node_id, reason: self._refuse(phase, node_id, reason),
            publish=lambda made: self._exchange.publish(phase, made),
        )
        extra = self._close(phase, model, start, waited)
        while extra is not None:
            extra = self._run_extra_phase(phase.server_round, extra, model)
        self._require_progress(phase)
        return model, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Drop unusable replies and let the inner strategy aggregate the others."""
        phase, waited = self._phase, _Waited(replies)
        start = time.monotonic()
        for _ in self._read_all(phase, waited):
            pass
        metrics = None
        agreeing = self._agreeing(phase)
        if agreeing:
            metrics = self.strategy.aggregate_evaluate(phase.server_round, agreeing)
        self._close(phase, None, start, waited)
        return metrics

    def summary(self) -> None:
        """Log what travels, and the settings of the inner strategy."""
        if self.method is not None:
            for line in self.method.summary(self._exchange.layout):
                log(INFO, "\t├──> %s", line)
        log(INFO, "\t├──> Inside: %s", type(self.strategy).__name__)
        self.strategy.summary()

    def _leader(self) -> Callable[..., Result]:
        """Return who leads the rounds: Flower's loop, or the inner strategy's own."""
        if type(self.strategy).start is Strategy.start:
            return super().start
        names = (
            "configure_train",
            "configure_evaluate",
            "aggregate_train",
            "aggregate_evaluate",
        )
        own = {name: getattr(self, name) for name in names}
        return standing_in(self.strategy, own).start

    def _resume(self, stack: ExitStack, initial: ArrayRecord) -> ArrayRecord:
        """Open the checkpoint if there is one; return the model to start from."""
        exchange, self._rounds_before = self._exchange, 0
        self._learned = self._learned or Learned(self.strategy)
        begun = exchange.begin(record_to_arrays(initial))
        folder = self._options.checkpoint
        if folder is None:
            return widened_record(begun)
        ledger = stack.enter_context(SqliteLedger(folder))
        exchange.attach(ledger)
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            return widened_record(begun)
        require_no_accountant(self.strategy)
        self._rounds_before = checkpoint.round
        if checkpoint.strategy is not None:
            self._learned.restore(checkpoint.strategy)
        exchange.restore(checkpoint, ledger)
        if checkpoint.wrapper is not None:
            self._aggregator.restore(checkpoint.wrapper)
        log(INFO, "Resumed after round %d", checkpoint.round)
        return widened_record(checkpoint.model)

    def _require_outermost(self) -> None:
        if self._grid is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} must be the outermost strategy, so that what it wraps sees "
                f"plain arrays and what it publishes is the final model: write "
                f"{name}(DifferentialPrivacy...(FedAvg(...))) and call {name}.start"
            )

    def _open(
        self, phase: Phase, messages: Iterable[Message], grid: Grid
    ) -> Iterable[Message]:
        self._phase = phase
        listed = list(messages)
        require_one_message_each(listed, type(self.strategy).__name__)
        presence = self._options.presence
        if self._options.clock or presence:
            self._numbers.meet(grid.get_node_ids())
        if presence:
            numbers = [self._numbers[m.metadata.dst_node_id] for m in listed]
            there = presence.present(phase.server_round, numbers)
            listed = [m for m, is_there in zip(listed, there, strict=True) if is_there]
        out = [
            self._bench.is_out(m.metadata.dst_node_id, phase.server_round)
            for m in listed
        ]
        if any(out) and not all(out):
            listed = [m for m, is_out in zip(listed, out, strict=True) if not is_out]
            log(WARNING, "Left out: %d nodes that were refused before", sum(out))
        listed = list(self._exchange.open(phase, listed))
        if self._grid is not None and phase.layout is not None:
            self._grid.expect(most_frame_bytes(phase.layout))
        self._recorder.opened(phase)
        phase.seconds_packing = time.monotonic() - phase.started
        return listed

    def _read_all(self, phase: Phase, replies: Iterable[Message]) -> Iterator[Reply]:
        """Yield the replies that count, as they arrive; each is in `phase` by then."""
        kept = 0
        for each in replies:
            arrival = _arrival(each, phase.started)
            node_id, message = arrival.node_id, arrival.message
            if not self._recorder.is_expected(phase, node_id):
                log(WARNING, "Ignored an unexpected reply of node %d", node_id)
                continue
            start = time.monotonic()
            nbytes = message_nbytes(message.content) if message.has_content() else 0
            self._recorder.arrived(
                phase, node_id, seconds=arrival.seconds, bytes_up=nbytes
            )
            try:
                if message.has_error():
                    raise _error(message)
                require_size(phase.requests[node_id], nbytes)
                reply = self._exchange.read(phase, node_id, message)
            except NotNowError as err:
                self._recorder.measured(phase, node_id, err.telemetry)
                self._refuse(phase, node_id, str(err), is_fault=False)
                continue
            except CodecError as err:
                self._refuse(phase, node_id, str(err))
                continue
            if not self._recorder.read(phase, reply):
                self._exchange.withdraw(node_id, "late")
                continue
            kept += nbytes
            if kept > _KEPT_BYTES:
                reply.source = None
            phase.replies[node_id] = reply
            yield reply
            if node_id in phase.replies:
                self._recorder.processed(phase, node_id, time.monotonic() - start)

    def _refuse(
        self, phase: Phase, node_id: int, reason: str, *, is_fault: bool = True
    ) -> None:
        kept = self._recorder.refused(phase, node_id, reason)
        self._exchange.withdraw(node_id, kept)
        phase.replies.pop(node_id, None)
        if is_fault:
            phase.faults[node_id] = kept

    def _agreeing(self, phase: Phase) -> list[Message]:
        """Return the replies to an evaluation that go together, with their contents."""
        if needs_weights(self.strategy, "aggregate_evaluate"):
            contents = {n: reply.content for n, reply in phase.replies.items()}
            for node_id, reason in disagreeing(contents).items():
                self._refuse(phase, node_id, reason)
            if not any(reply.weight for reply in phase.replies.values()):
                return []
        messages = []
        for reply in phase.replies.values():
            reply.message.content = reply.content
            messages.append(reply.message)
        return messages

    def _close(
        self, phase: Phase, model: ArrayRecord | None, start: float, waited: _Waited
    ) -> ExtraPhase | None:
        """Commit a phase and write down what it cost."""
        end = self._recorder.timed(phase)
        outcome = None
        if model is not None:
            phase.model = record_to_arrays(model)
        if self.method is not None and phase.requests:
            outcome = self.method.after(phase, self._exchange.present(phase))
            self._exchange.note(outcome)
        inner, wrapper = None, None
        if model is not None and self._learned and self._options.checkpoint is not None:
            inner = self._learned.capture()
            wrapper = self._aggregator.with_lengths(self._exchange.state())
        self._exchange.close(phase, model, inner=inner, wrapper=wrapper)
        for node_id, record in phase.records.items() if phase.is_train else ():
            answered = node_id in phase.faults or not record.dropped
            if answered and self._bench.note(
                node_id, phase.server_round, refused=node_id in phase.faults
            ):
                log(WARNING, "Node %d was refused again: it is left out", node_id)
        busy = time.monotonic() - start - waited.seconds
        self._recorder.closed(phase, virtual_seconds=end, seconds_busy=busy)
        return outcome.extra if outcome else None

    def _run_extra_phase(
        self, server_round: int, extra: ExtraPhase, model: ArrayRecord | None
    ) -> ExtraPhase | None:
        """Run a phase of the method, of which the inner strategy learns nothing."""
        assert self._grid is not None
        assert model is not None
        messages = [
            Message(
                RecordDict(
                    {
                        self._exchange.model_key: model,
                        "config": ConfigRecord(),
                        **extra.records,
                    }
                ),
                dst_node_id=node_id,
                message_type=MessageType.TRAIN,
            )
            for node_id in extra.node_ids
        ]
        phase = Phase(extra.kind, server_round, attempt=extra.attempt)
        packed = self._open(phase, messages, self._grid)
        waited = _Waited(
            self._grid.send_and_receive(packed, timeout=self._timeout, to_all=True)
        )
        start = time.monotonic()
        for _ in self._read_all(phase, waited):
            pass
        return self._close(phase, None, start, waited)

    def _require_progress(self, phase: Phase) -> None:
        """End the run if devices reply again and again and no reply can be used.

        Raises
        ------
        TrainingFailedError
            With the most frequent reason.
        """
        most = self._options.max_failed_rounds
        if phase.replies or not phase.faults or not most:
            self._failed_rounds = 0 if phase.replies else self._failed_rounds
            return
        self._failed_rounds += 1
        if phase.server_round > 1 and self._failed_rounds < most:
            return
        ((reason, _),) = Counter(phase.faults.values()).most_common(1)
        count = self._failed_rounds
        rounds = "1 round" if count == 1 else f"{count} rounds"
        raise TrainingFailedError(
            f"none of {len(phase.faults)} replies could be used in {rounds}. Most "
            f"frequent reason: {reason}"
        )


class _Waited(Iterator[Message]):
    """Passes replies on and counts the seconds that they were waited for."""

    def __init__(self, replies: Iterable[Any]) -> None:
        self._replies = iter(replies)
        self.seconds = 0.0

    def __next__(self) -> Message:
        start = time.monotonic()
        try:
            reply: Message = next(self._replies)
            return reply
        finally:
            self.seconds += time.monotonic() - start


def _error(message: Message) -> CodecError:
    """Return what an error reply says; without blame if the SuperLink wrote it."""
    error = message.error
    text = f"error {error.code}: {error.reason}"
    if error.code in _NOT_OF_THE_DEVICE:
        return NotNowError(text)
    if error.code == ErrorCode.MOD_FAILED_PRECONDITION:
        return CodecError(f"{text}. Put compression_mod first, before other mods")
    if FRAME_STYPE in str(error.reason):
        return CodecError(f"{NO_MOD} ({text})")
    return CodecError(text)


def _arrival(reply: Message | Arrival, start: float) -> Arrival:
    if isinstance(reply, Arrival):
        return reply
    return Arrival(reply.metadata.src_node_id, reply, time.monotonic() - start)


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
