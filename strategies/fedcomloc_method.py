"""The server's half of FedComLoc: phases, control epochs, and who moves when."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import CodecError, Layout, get_codec
from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Arrays
from flwr_caesar.flower import log
from flwr_caesar.methods import Settings
from flwr_caesar.methods.control import ControlSettings
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.sources import Sources
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import EVALUATE, MEAN_KEY, MOVE_CONTROL, frame_to_record

from .compressed_downlink import CompressedDownlink
from .exchange import cast_like
from .fedcomloc_codec import model_codec, named_codec
from .fedcomloc_facts import ControlFacts, new_epoch
from .inner import aggregates_a_mean
from .method import ServerMethod
from .phase import Device, DevicePlan, ExtraPhase, Outcome, Phase, Reply

VARIANTS = ("com", "local", "global")
STEPS = ("geometric", "fixed")
LOCAL_CODECS = ("topk", "qsgd")
PART = "control_variates"
_MOVE_ATTEMPTS = 2
_MOST_RESETS, _WINDOW = 3, 20
OFTEN_CHANGED = "this node changes its control variates behind the server's back"


class FedComLocMethod(ServerMethod):
    """Devices of a round train as many steps, send models, and move variates.

    A round is a training phase and, with control variates, a phase in which the devices
    whose models were used are told the mean. What was used is noted as owed with the
    commit of the training phase, and as paid when the device reports that it moved its
    ``h``; a device that is not as it was noted breaks the sum, and all begin anew.

    Parameters
    ----------
    lr, variant, density, bits, bucket, values, exact_below, codec, p, steps, control
        See `flwr_caesar.strategies.FedComLoc`.
    feedback
        See `flwr_caesar.strategies.FedComLoc`.
    seed
        See `flwr_caesar.strategies.FedComLoc`.

    Attributes
    ----------
    epoch : int
        Name of the time since all devices had ``h = 0``.
    resets : int
        Control epochs that this server had to begin anew.
    compressed : CompressedDownlink or None
        The download of ``variant="global"``.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        lr: float,
        variant: str,
        density: float,
        bits: int,
        bucket: int | None,
        values: str,
        exact_below: int,
        codec: Mapping[str, Any] | str | None,
        p: float,
        steps: str,
        control: bool,
        feedback: float,
        seed: int,
        sources: Sources | None = None,
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
        if not 0 <= feedback <= 1:
            raise ValueError(f"feedback must be in [0, 1], not {feedback}")
        if feedback != 1 and variant != "global":
            raise ValueError(
                f"feedback has no effect with variant {variant}: leave it out"
            )
        if codec is None:
            chosen = model_codec(
                density=density,
                bits=bits,
                bucket=bucket,
                values=values,
                exact_below=exact_below,
            )
        else:
            chosen = named_codec(codec, exact_below=exact_below)
            if variant == "local" and chosen.id not in LOCAL_CODECS:
                raise ValueError(
                    f"variant local takes gradients at what C makes of a torch tensor: "
                    f"codec must be one of {', '.join(LOCAL_CODECS)}, not {chosen.id}"
                )
        self.compressed = (
            CompressedDownlink(chosen, feedback=feedback)
            if variant == "global"
            else None
        )
        super().__init__(
            downlink=self.compressed,
            upload=chosen if variant == "com" else None,
            payload=MODEL_PAYLOAD,
            uniform_weights=True,
        )
        self._support_codec = model_codec(
            density=density if codec is None else 1,
            bits=32,
            values="float32",
            exact_below=exact_below,
        )
        lossy = variant == "local" and chosen.id != "dense"
        self._local = json.dumps(chosen.config) if lossy else ""
        self._lr, self._p, self._steps, self._seed = lr, p, steps, seed
        self._control = control
        self._made: Arrays = {}
        self._caused: dict[int, list[int]] = {}
        self._sources = sources or Sources()
        self.epoch = new_epoch(self._sources)
        self.resets = 0

    def require(self, inner: Strategy) -> None:
        """Control variates need a strategy that takes a mean."""
        if self._control and not aggregates_a_mean(inner):
            raise ValueError(
                f"control variates need the mean of the models, and "
                f"{type(inner).__name__} takes none: set control to false"
            )

    def local_steps(self, server_round: int) -> int:
        """Return the local steps of all devices in a round."""
        if self._steps == "fixed":
            return round(1 / self._p)
        rng = np.random.default_rng([self._seed, server_round])
        return int(rng.geometric(self._p))

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Return the same for all: steps to train, or how to move control variates."""
        config: dict[str, int | float | str] = {}
        since = phase.server_round - _WINDOW
        self._caused = {
            node_id: recent
            for node_id, rounds in self._caused.items()
            if (recent := [number for number in rounds if number > since])
        }
        if phase.is_train:
            config = {
                "local-steps": self.local_steps(phase.server_round),
                "lr": self._lr,
            }
            if self._local:
                config["compress"] = self._local
        settings = Settings()
        if self._control:
            moves = phase.kind == MOVE_CONTROL
            settings = ControlSettings(
                epoch=self.epoch,
                phase=phase.kind,
                p=self._p if moves else 0.0,
                lr=self._lr if moves else 0.0,
                support=moves and self._is_fed_back,
            )
        plan = DevicePlan(
            self.upload,
            config,
            settings,
            part=PART if self._control else "",
            call_app=phase.kind != MOVE_CONTROL,
        )
        return {device.node_id: plan for device in devices}

    def check(self, reply: Reply) -> None:
        """Refuse who made all others start again too often."""
        if len(self._caused.get(reply.node_id, ())) >= _MOST_RESETS:
            raise CodecError(
                f"{OFTEN_CHANGED}: all devices start again because of one of them at "
                f"most {_MOST_RESETS} times in {_WINDOW} rounds"
            )

    def finish(self, made: Arrays) -> Arrays:
        """Return the model as devices will hold it."""
        if self.compressed is None:
            return made
        if self._control and not self._is_fed_back:
            self._made = made
        return self.compressed.compress(made)

    @property
    def keeps_mean(self) -> bool:
        """See `ServerMethod.keeps_mean`."""
        return True

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Find who broke the sum, note who owes a move or made it."""
        if not self._control:
            return Outcome()
        facts: dict[int, bytes] = {}
        before = self.epoch
        broken = {
            d.node_id: why for d in present if (why := self._why_broken(phase, d))
        }
        for node_id in broken:  # so that a server that is restarted now resets too
            facts[node_id] = ControlFacts(before, owes=True).pack()
        if broken:
            self._reset(next(iter(broken.values())), broken, phase.server_round)
        known = {d.node_id: self._known(d) for d in present if d.node_id not in facts}
        if phase.is_train:
            return self._begin_moving(phase, known, facts)
        if phase.kind == MOVE_CONTROL:
            return self._go_on_moving(phase, known, facts, before)
        return Outcome(facts)

    def state(self) -> StrategyState:
        """See `ServerMethod.state`."""
        state = super().state()
        return StrategyState({**state.tree, "epoch": self.epoch}, state.arrays)

    def restore(self, state: StrategyState, facts: Mapping[str, bytes]) -> None:
        """See `ServerMethod.restore`."""
        super().restore(state, facts)
        epoch = state.tree.get("epoch")
        if not isinstance(epoch, int):
            raise DamagedStateError("the checkpoint is not FedComLoc's: no epoch")
        self.epoch = epoch
        known = [ControlFacts.of(data) for data in facts.values()]
        if any(each.owes and each.epoch == epoch for each in known):
            self._reset(
                "the server was stopped before all devices had moved their variates"
            )

    def _begin_moving(
        self, phase: Phase, known: Mapping[int, ControlFacts], facts: dict[int, bytes]
    ) -> Outcome:
        if not phase.model:
            return Outcome(facts)
        owing = sorted(phase.replies)
        for node_id in owing:
            own = known.get(node_id, ControlFacts(self.epoch))
            facts[node_id] = replace(own, owes=True).pack()
        if not owing:
            return Outcome(facts)
        record = self._mean_apart(phase)
        records = {MEAN_KEY: record} if record is not None else {}
        return Outcome(facts, ExtraPhase(MOVE_CONTROL, tuple(owing), records))

    def _go_on_moving(
        self,
        phase: Phase,
        known: Mapping[int, ControlFacts],
        facts: dict[int, bytes],
        epoch: int,
    ) -> Outcome:
        owing = set(phase.requests)
        if self.epoch == epoch:
            for node_id, own in known.items():
                reply, paid = phase.replies.get(node_id), own.paid()
                if reply and own.owes and reply.report.part == paid.report:
                    facts[node_id] = paid.pack()
                    owing.remove(node_id)
        if not owing or self.epoch != epoch:
            return Outcome(facts)
        if phase.attempt >= _MOVE_ATTEMPTS:
            self._reset(f"{len(owing)} devices could not be reached to move theirs")
            return Outcome(facts)
        first = next(iter(phase.requests.values()))
        records = {name: r for name, r in first.others.items() if name == MEAN_KEY}
        again = ExtraPhase(
            MOVE_CONTROL, tuple(sorted(owing)), records, phase.attempt + 1
        )
        return Outcome(facts, again)

    def _known(self, device: Device) -> ControlFacts:
        """Return what a device should have in this epoch."""
        return ControlFacts.of(device.facts).in_epoch(self.epoch)

    def _why_broken(self, phase: Phase, device: Device) -> str:
        if device.row is None:
            return ""
        expected = device.header.device
        if expected and device.row.device != expected:
            lost = self._before(phase, device.node_id)
            if lost.epoch == self.epoch and (lost.moves or lost.owes):
                return (
                    f"the device at node {device.node_id} has lost its control variates"
                )
        reply = phase.replies.get(device.node_id)
        if phase.kind == EVALUATE:  # changes no variate, so nothing is reported
            return ""
        facts = self._known(device)
        allowed = [facts.report]
        if phase.kind == MOVE_CONTROL:
            allowed.append(facts.paid().report)
        if reply is None or reply.report.part in allowed:
            return ""
        return f"the device at node {device.node_id} has changed its control variates"

    def _before(self, phase: Phase, node_id: int) -> ControlFacts:
        """Return what was known of the device that was believed to be at a node."""
        device = phase.requests[node_id].device
        return ControlFacts.of(device.facts) if device else ControlFacts()

    def _reset(
        self, reason: str, causes: Iterable[int] = (), server_round: int = 0
    ) -> None:
        for node_id in causes:
            self._caused.setdefault(node_id, []).append(server_round)
        log(WARNING, "All control variates start from 0 again: %s", reason)
        self.epoch = new_epoch(self._sources)
        self.resets += 1

    @property
    def _is_fed_back(self) -> bool:
        return self.compressed is not None and self.compressed.feedback > 0

    def _mean_apart(self, phase: Phase) -> ArrayRecord | None:
        """Return the mean for devices that cannot tell it from the model they get.

        What moves ``h`` is the mean; as published, ``C`` of it.
        """
        layout = phase.layout or Layout.of(phase.mean)
        mean, model = cast_like(layout, phase.mean), phase.model
        if self._is_fed_back:
            known = {
                name: np.where(model[name] != 0, array, np.zeros_like(array))
                for name, array in mean.items()
            }
            return frame_to_record(self._support_codec.encode(known)[0])
        # Without feedback, what is sent is C of what the inner strategy made.
        told = model if self.compressed is None else self._made
        self._made = {}
        floats = [n for n, a in mean.items() if a.dtype.name in FLOAT_DTYPES]
        if all(np.array_equal(mean[name], told[name]) for name in floats):
            return None
        codec = self.compressed.codec if self.compressed else get_codec("dense")
        return frame_to_record(codec.encode(mean)[0])
