"""One training of one strategy under faults, and what is checked when."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message

from flwr_caesar.codec import Layout, inspect_frame
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies import CompressedStrategy
from flwr_caesar.strategies.aggregate import NOT_AGAIN
from flwr_caesar.strategies.fedcomloc_method import OFTEN_CHANGED
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.transport import (
    TRAIN,
    Plan,
    record_to_arrays,
    record_to_frame,
)

from .app import SIZES, FaultApp, initial_model
from .backups import Backups
from .cases import FaultCase
from .chance import Chance
from .control_law import ControlLaw
from .devices import FaultDevices
from .grid import FaultGrid, ServerKilledError
from .law import Law
from .listening import Arrays, listen_to_finish, listened_to
from .met import kind_of
from .odds import MOST_LIVES_BACK, SERVER_FAULTS
from .poison import HARMLESS, guard_of, limited
from .report import FaultReport
from .sessions import QUIET_ROUNDS
from .upload_law import Given, UploadLaw, Vector, parsed
from .world import Clock, by_seed, quiet_log

_TOLERANCE = 1e-4
# Some rounds go well, some less so, in some everything fails at once.
SEVERITIES = (0.0, 0.5, 1.0, 1.0)
_FRACTION_EVALUATED = 0.1
# What docs/trust.md promises of a mean.
_MOST_SHARE = 0.75


class StrategyFaultRun:
    """One training of one strategy, see `run_strategy_faults`.

    Parameters
    ----------
    name : str
        Of the case, for the report.
    case : FaultCase
        The strategy, and its settings.
    seed : int
        Decides everything.
    devices : int
        How many there are.
    participation : float
        Fraction of them asked in a round.
    folder : Path
        For the server's durable folder and backups of it.
    on_round : callable, optional
        Called with the number of each round and this run, when it begins.
    severities : sequence of float
        Each round draws one, by which its chances of faults are multiplied.

    Attributes
    ----------
    law : Law
        With the violations found so far.
    number : int
        Rounds begun.
    """

    def __init__(
        self,
        name: str,
        case: FaultCase,
        seed: int,
        devices: int,
        participation: float,
        folder: Path,
        on_round: Callable[[int, StrategyFaultRun], None] | None = None,
        *,
        severities: Sequence[float] = SEVERITIES,
    ) -> None:
        self._name = name
        self._severities = severities
        self._case = case
        self._chance = Chance(seed)
        self._clock = Clock()
        self._sources = by_seed(self._chance, self._clock)
        self._order = random.Random(seed)
        self._participation = participation
        self._count = devices
        self._folder = folder
        self._on_round = on_round
        self._app = FaultApp(seed, self._sources)
        self.law = Law(SIZES, tolerance=_TOLERANCE)
        self._control = ControlLaw(self.law)
        self._strategy: CompressedStrategy | None = None
        method = case.method()
        self._uniform = method.uniform_weights
        self._is_model = method.payload == MODEL_PAYLOAD
        self._takes_every = case.takes_every_reply()
        self._uploads = UploadLaw(
            self.law,
            Layout.of(record_to_arrays(initial_model())),
            error_feedback=method.error_feedback,
            payload=method.payload,
        )
        self._devices = FaultDevices(
            devices,
            self._app,
            self._chance,
            self.law,
            self._uploads,
            self._control,
            folder / "disks",
        )
        self._grid = FaultGrid(self._app, self._devices, self._chance, self._opened)
        self.refusals: Counter[str] = Counter()
        self.number = 0
        self._commits = self._applied = self._predicted = self._resets = 0
        self._resets_seen: int | None = None
        self._heard: frozenset[int] = frozenset()
        self._backups = Backups(folder / "server", self._chance)
        self._set_back = False
        # Lives of the server for which its clock stays wrong.
        self._lives_back = 0
        # Of the phase: the inner strategy's model, what it was given, what it made.
        self._model: Vector = self.law.zeros()
        self._given: dict[int, Vector] | Vector | None = None
        self._made: Vector | None = None
        # Durable on the server: the last round, and the model after it if it is known.
        self._round = 0
        self._durable: Vector | None = None

    @property
    def events(self) -> int:
        """Messages carried, durable writes, commits, and acts of the operator."""
        return self._grid.events + self._devices.events + self._commits

    @property
    def faults(self) -> Counter[str]:
        """What was injected, by kind."""
        return self._chance.faults

    def run(self, rounds: int, quiet_rounds: int = QUIET_ROUNDS) -> None:
        """Run so many rounds with faults, then some without; stop at a violation."""
        self._order.seed(self._chance.random.random())
        with quiet_log():
            while self.number < rounds and not self.law.violations:
                self._serve(rounds - self.number)
            if not self.law.violations:
                self._quiet_rounds(quiet_rounds)

    def report(self, *, seed: int, rounds: int, participation: float) -> FaultReport:
        """Return what happened."""
        return FaultReport(
            seed=seed,
            devices=len(self._devices.holders),
            rounds=rounds,
            participation=participation,
            events=self.events,
            faults=dict(sorted(self.faults.items())),
            applied=self._applied,
            changes=self._grid.changes,
            resyncs=self._grid.resyncs,
            forfeited=self.law.forfeited,
            refusals=dict(self.refusals.most_common()),
            violations=tuple(self.law.violations),
            strategy=self._name,
            predicted=self._predicted,
            moved=self._control.moved,
            resets=self._resets,
            met=self._devices.met.report(),
            progress=self.progress,
        )

    @property
    def progress(self) -> float:
        """How far the model is on its way; see `FaultReport`."""
        goal = self.law.vector(self._app.mean_target(self._count))
        start = self.law.vector(record_to_arrays(initial_model()))
        left = np.square(self._model - goal).sum() / np.square(start - goal).sum()
        return float(100 * (1 - left))

    def _count_poison(self, dropped: dict[int, str]) -> None:
        """Take note of which guard met which struck reply; no poison may count."""
        for node, answer in self._grid.first.items():
            if node not in dropped:
                continue
            reason = dropped[node]
            guard = guard_of(reason) if reason else "used"
            self._devices.met.add(guard, answer.poison or answer.fault)
            if answer.poison and not reason and answer.poison not in HARMLESS:
                self.law.report(f"a reply counts in spite of {answer.poison}")

    def _quiet_rounds(self, rounds: int) -> None:
        self._chance.quiet = True
        self._set_back, self._lives_back = False, 0
        self._grid.clear()
        self._serve(rounds)
        self.law.where = "after the quiet rounds"
        for holder in self._devices.holders:
            state = holder.state
            if holder.node_id not in self._heard:
                self.law.report(f"device {holder.number} is not heard again")
            if state is None or (state.version, state.digest) != self._grid.target:
                self.law.report(f"device {holder.number} is left behind")
        states = [holder.state for holder in self._devices.holders]
        if not self._control.sum_is_zero(states, excuse=False):
            self.law.report("the control variates do not sum to zero again")

    # the server's life

    def _serve(self, rounds: int) -> None:
        """Let a server live for some rounds, or until it is killed."""
        self._back_up_or_restore()
        self._lives_back = max(self._lives_back - 1, 0)
        self._clock.is_back = self._set_back or self._lives_back > 0
        self._set_back = False
        self._resets_seen = None
        every = self._takes_every and self._chance.random.random() < 0.5
        inner = listened_to(self, every=every, order=self._order)
        self._strategy = strategy = self._case.build(
            inner,
            devices=self._count,
            checkpoint=self._folder / "server",
            on_record=self._recorded,
            sources=self._sources,
        )
        if strategy.method is not None:
            listen_to_finish(self, strategy.method)
        try:
            strategy.start(
                self._grid,
                initial_model(),
                num_rounds=self._round + rounds,
                timeout=0.0,
            )
            self._phase_ended()
        except ServerKilledError:
            pass
        except Exception as err:
            self.law.report(f"the server fails: {type(err).__name__}: {err}")
        self._resets += getattr(strategy, "resets", 0)

    def _back_up_or_restore(self) -> None:
        operator = self._devices.operator
        backup = self._backups.put_back()
        if backup is not None:
            self._lives_back = 0  # with an old ledger, it would not be known as wrong
            self._round, self._durable = backup.round, backup.model
            operator.epoch += 1
            self.law.restored(backup.truth, self._devices.holders, operator.phase)
            self._control.server_restored()
        elif self._round and self._backups.may_be_due():
            truth = self.law.snapshot()
            self._backups.make(operator.phase, truth, self._round, self._durable)

    def _kill(self, kind: str) -> None:
        if self._chance.strikes(kind, SERVER_FAULTS):
            raise ServerKilledError

    # what the inner strategy sees

    def round_begins(self, arrays: ArrayRecord) -> None:
        """See `Listener.round_begins`."""
        self._phase_ended()
        self.number += 1
        self.law.where = f"round {self.number}"
        if self._on_round:
            self._on_round(self.number - 1, self)
        self._chance.scale = max(self._severities)
        self._devices.tamper()
        self._chance.scale = self._chance.random.choice(self._severities)
        self._grid.choose(self._participation)
        self._model = self.law.vector(record_to_arrays(arrays))
        if self._durable is None:
            self._durable = self._model
        if not np.array_equal(self._model, self._durable):
            self.law.report("the round begins with another model than the last made")

    def evaluation_begins(self) -> None:
        """See `Listener.evaluation_begins`."""
        self._phase_ended()
        self._grid.choose(_FRACTION_EVALUATED)

    def made(self, arrays: ArrayRecord | None) -> None:
        """See `Listener.made`."""
        if arrays is not None:
            self._made = self.law.vector(record_to_arrays(arrays))
        self._kill("server-crash-before-commit")

    def finished(self, model: Arrays) -> None:
        """See `Listener.finished`."""
        self._made = self.law.vector(model)

    def evaluated(self) -> None:
        """See `Listener.evaluated`."""
        self._kill("server-crash-before-commit")

    def given(self, replies: Sequence[Message], *, every: bool) -> None:
        """See `Listener.given`."""
        base = self.law.zeros() if self._is_model else self._model
        given = {
            reply.metadata.src_node_id: self.law.vector(
                record_to_arrays(reply.content.array_records["arrays"])
            )
            - base
            for reply in replies
        }
        self._given = given if every else next(iter(given.values()))

    # what the server says of a phase

    def _opened(self, plan: Plan) -> None:
        self._given = self._made = None
        epoch = plan.settings.get("epoch")
        if isinstance(epoch, int):
            states = [holder.state for holder in self._devices.holders]
            self._control.opened(epoch, states)
            self._resets_seen = getattr(self._strategy, "resets", 0)

    def _recorded(self, record: RoundRecord) -> None:
        dropped = {device.node_id: device.dropped for device in record.devices}
        used = [node for node, reason in dropped.items() if not reason]
        if record.phase == TRAIN:
            self._heard = frozenset(used)
            self._count_poison(dropped)
            for node, answer in self._grid.first.items():
                reason = dropped.get(node, "")
                if not reason or reason.startswith((OFTEN_CHANGED, NOT_AGAIN)):
                    continue
                if answer.honest and self._uploads.should_count(answer.content):
                    self.law.report(f"an honest reply is refused: {reason}")
            if self._given is not None:
                self._committed(record.server_round, used)
        self.refusals.update(kind_of(reason) for reason in dropped.values() if reason)
        self._kill("server-crash-after-commit")
        if self._chance.strikes("server-clock-back", SERVER_FAULTS):
            self._set_back = True
            self._devices.operator.epoch += 1
            self._devices.operator.excuse_all()
            raise ServerKilledError
        if self._chance.strikes("server-clock-stays-back", SERVER_FAULTS):
            # Nothing is excused: the ledger goes on, and orders grow all the same.
            self._lives_back = self._chance.random.randrange(2, MOST_LIVES_BACK)
            raise ServerKilledError
        if self._backups and self._chance.strikes("server-restored", SERVER_FAULTS):
            self._backups.choose()
            raise ServerKilledError

    def _committed(self, server_round: int, used: list[int]) -> None:
        assert self._given is not None
        uploads = []
        for node in used:
            content = self._grid.first[node].content
            header = None if content is None else parsed(content)
            if content is None or header is None:
                self.law.report("a reply that cannot be read is used")
                return
            (record,) = content.array_records.values()
            (metrics,) = content.metric_records.values()
            weight = metrics["num-examples"]
            assert isinstance(weight, (int, float))
            frame = record_to_frame(record)
            self._predicted += inspect_frame(frame).state_digest != NO_DIGEST
            uploads.append(Given(node, header, frame, float(weight)))
        if not isinstance(self._given, dict) and not self._uniform:
            limits = limited({u.node_id: u.weight for u in uploads}, _MOST_SHARE)
            uploads = [replace(u, weight=limits[u.node_id]) for u in uploads]
        self._uploads.applied(uploads, self._given, uniform=self._uniform)
        self._commits += 1
        self._applied += len(uploads)
        self._round = server_round
        self._durable = self._made

    def _phase_ended(self) -> None:
        """Check every law that holds between two phases."""
        for holder in self._devices.holders:
            self.law.check(holder)
        # After a reset no device is in the server's epoch, until it is asked.
        if self._resets_seen == getattr(self._strategy, "resets", None):
            states = [holder.state for holder in self._devices.holders]
            if not self._control.sum_is_zero(states):
                self.law.report("the control variates do not sum to zero")
        if self.law.violations:
            raise ServerKilledError
