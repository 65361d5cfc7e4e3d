"""Flower's face: another strategy, with its traffic replaced."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from logging import INFO, WARNING
from typing import Any, Unpack

from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flwr_caesar.codec import Layout
from flwr_caesar.flower import log
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.strategy_state import Learned
from flwr_caesar.transport import (
    EVALUATE,
    TRAIN,
    record_to_arrays,
    widened_record,
)

from .aggregate import Aggregator
from .charge import Charger, DeviceIndex
from .exchange import most_frame_bytes, require_one_message_each
from .exchanges import exchange_for
from .expected import expectation, require_memory
from .extra import extra_messages
from .failed_rounds import FailedRounds
from .grid import StreamingGrid
from .guard import Bench
from .inner import STEPS, leads_itself, require_strategy, standing_in
from .intake import Intake, Waited
from .measured import Measured
from .method import ServerMethod
from .options import Options, WrapperOptions
from .phase import ExtraPhase, Phase
from .privacy import require_no_accountant
from .recorder import Recorder
from .resumed import FirstModel, first_record, shifted


class CompressedStrategy(Measured, Strategy):
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
        self._recorder = Recorder(chosen.sinks, charger, chosen.on_progress)
        self._exchange = exchange_for(strategy, method, chosen)
        self._aggregator = Aggregator(
            strategy,
            chosen.guard,
            uniform=method is not None and method.uniform_weights,
            keeps_mean=method is not None and method.keeps_mean,
        )
        self._intake = Intake(self._exchange, self._recorder)
        self._bench = Bench(chosen.guard)
        self._phase = Phase("", 0)
        self._rounds_before = 0
        self._metrics = {}
        self._failed_rounds = FailedRounds(chosen.max_failed_rounds)
        self._learned: Learned | None = None
        self._grid: StreamingGrid | None = None
        self._timeout = 0.0
        self._first = FirstModel()

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
        Tensors that began in bfloat16 are float32 in the result and for `evaluate_fn`,
        with values of bfloat16 only.

        Parameters
        ----------
        grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config
            See Flower's `Strategy.start`.
        evaluate_fn
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
            del initial_arrays  # which may be in memory for this call only
            if not leads_itself(self.strategy):
                first = self._first.lend(first)
            before = self._rounds_before
            options = self._options
            deadline = None if options.clock else options.deadline
            self._grid = StreamingGrid(grid, deadline=deadline, quorum=options.quorum)
            self._timeout = timeout
            self._failed_rounds = FailedRounds(options.max_failed_rounds)
            try:
                given = {
                    "timeout": None if timeout == 3600 else timeout,
                    "train_config": train_config,
                    "evaluate_config": evaluate_config,
                    "evaluate_fn": evaluate_fn and self._noting(evaluate_fn, before),
                    **more,
                }
                done = stack.enter_context(self._watched(num_rounds, evaluate_fn))
                result = self._leader()(
                    self._grid,
                    first,
                    max(num_rounds - before, 0),
                    # A loop of the inner strategy's own may take less.
                    **{name: v for name, v in given.items() if v is not None},
                )
                result.arrays = self._as_sent(result.arrays or first)
                done(result)
            finally:
                self._grid = None
        return result if before == 0 else shifted(result, before)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        self._require_outermost()
        number = server_round + self._rounds_before
        arrays = self._first.shown(arrays)
        messages = self.strategy.configure_train(number, arrays, config, grid)
        nodes = 0
        if self.method is not None and self.method.counts_nodes:
            nodes = len(list(grid.get_node_ids()))
        return self._open(Phase(TRAIN, number, federation=nodes), messages, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample and configure, then pack its messages."""
        self._require_outermost()
        number = server_round + self._rounds_before
        arrays = self._first.shown(arrays)
        messages = self.strategy.configure_evaluate(number, arrays, config, grid)
        return self._open(Phase(EVALUATE, number), messages, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Open replies as they arrive and let the inner strategy aggregate them."""
        phase, waited = self._phase, Waited(replies)
        start = time.monotonic()
        model, metrics = self._aggregator.run(
            phase,
            self._intake.read(phase, waited),
            decode_again=lambda reply: self._exchange.decode_again(phase, reply),
            refuse=partial(self._intake.refuse, phase),
            publish=lambda made: self._exchange.publish(phase, made),
        )
        extra = self._close(phase, model, start, waited)
        while extra is not None:
            extra = self._run_extra_phase(phase.server_round, extra, model)
        self._first.replaced(by=model)
        self._failed_rounds.note(phase)
        return model, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Drop unusable replies and let the inner strategy aggregate the others."""
        phase, waited = self._phase, Waited(replies)
        start = time.monotonic()
        deque(self._intake.read(phase, waited), maxlen=0)
        refuse = partial(self._intake.refuse, phase)
        metrics = self._aggregator.evaluate(phase, refuse)
        if phase.replies:
            self._note_metrics(phase.server_round, metrics)
        self._close(phase, None, start, waited)
        self._tell(phase.server_round, evaluated=False)
        return metrics

    def summary(self) -> None:
        """Log what travels, and the settings of the inner strategy."""
        if self.method is not None:
            for line in self.method.summary(self._exchange.layout):
                log(INFO, "\t├──> %s", line)
        layout = self._exchange.layout
        if self.method is not None and layout is not None:
            told = expectation(layout, self.method, self.strategy)
            log(INFO, "\t├──> %s", told)
        for note in self._exchange.notes():
            log(WARNING, "\t├──> %s", note)
        log(INFO, "\t├──> Inside: %s", type(self.strategy).__name__)
        self.strategy.summary()

    def _leader(self) -> Callable[..., Result]:
        """Return who leads the rounds: Flower's loop, or the inner strategy's own."""
        if not leads_itself(self.strategy):
            return super().start
        own = {name: getattr(self, name) for name in STEPS}
        return standing_in(self.strategy, own).start

    def _resume(self, stack: ExitStack, initial: ArrayRecord) -> ArrayRecord:
        """Open the checkpoint if there is one; return the model to start from."""
        exchange, self._rounds_before = self._exchange, 0
        self._learned = self._learned or Learned(self.strategy)
        given = record_to_arrays(initial)
        require_memory(Layout.of(given))
        begun = exchange.begin(given)
        folder = self._options.checkpoint
        if folder is None:
            return first_record(initial, given, begun)
        ledger = stack.enter_context(SqliteLedger(folder))
        exchange.attach(ledger)
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            return first_record(initial, given, begun)
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
        self._phase, phase.longest = phase, self._aggregator.longest
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
        if self._grid is not None:
            most = math.inf if phase.layout is None else most_frame_bytes(phase.layout)
            self._grid.expect(most, phase.doubtful, self._intake.settle)
        self._recorder.opened(phase)
        phase.seconds_packing = time.monotonic() - phase.started
        return listed

    def _close(
        self, phase: Phase, model: ArrayRecord | None, start: float, waited: Waited
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
            refused = node_id in phase.faults
            if record.dropped and not refused:
                continue
            if self._bench.note(node_id, phase.server_round, refused=refused):
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
        messages = extra_messages(extra, self._exchange.model_key, model)
        phase = Phase(extra.kind, server_round, attempt=extra.attempt)
        packed = self._open(phase, messages, self._grid)
        waited = Waited(
            self._grid.send_and_receive(packed, timeout=self._timeout, to_all=True)
        )
        start = time.monotonic()
        deque(self._intake.read(phase, waited), maxlen=0)
        return self._close(phase, None, start, waited)
