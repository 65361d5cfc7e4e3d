"""Frames both ways, and who holds which version."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    difference,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.codec.contract.non_finite import with_non_finite, without_non_finite
from flwr_caesar.codec.contract.update import (
    change_of_others,
    keep_sign,
    length,
    nonnegative,
)
from flwr_caesar.codec.contract.vector import require_elements
from flwr_caesar.flower import arrays_in
from flwr_caesar.sync.ledger import Checkpoint
from flwr_caesar.sync.ledger_api import LedgerStore
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.part import completed
from flwr_caesar.sync.protocol import NOT_NOW
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.sync.sources import Sources
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import (
    DeviceReport,
    message_nbytes,
    note_of,
    record_to_arrays,
    record_to_frame,
    widened_record,
    without_note,
)

from .charge import Work
from .exchange import (
    Exchange,
    Opened,
    cast_like,
    is_same_model,
    most_reply_bytes,
    nonnegative_sum,
    others,
    zeros_like,
)
from .fitted import Fitting
from .frame_messages import (
    NO_MOD,
    not_now,
    packed,
    plain_others,
    require_frame_size,
    upload_key,
)
from .method import ServerMethod
from .phase import Device, Outcome, Phase, Reply, Request
from .privacy import clip, clips_on_devices
from .too_long import TooLong


class FrameExchange(Exchange):
    """The model down by a method's downlink, uploads up by its codecs.

    A device that holds the model already is sent a reference to it. Updates are
    acknowledged by the next download; what was not applied returns to the device's
    residual (docs/sync.md). The model is one ArrayRecord of a message; others travel
    exactly.

    Parameters
    ----------
    inner : Strategy
        The user's strategy.
    method : ServerMethod
        How, and who is asked for what.
    max_residual_age, sources : int, Sources
        See `WrapperOptions`.
    """

    def __init__(
        self,
        inner: Strategy,
        method: ServerMethod,
        *,
        max_residual_age: int,
        sources: Sources,
    ) -> None:
        super().__init__(inner)
        self.method = method
        self.memory = method.uplink_memory()
        self._too_long = TooLong()
        self.ledger: LedgerStore = MemoryLedger()
        self.session: ServerSession | None = None
        self._fitting = Fitting(method)
        self._max_residual_age = max_residual_age
        self._sources = sources
        self._clipping = clips_on_devices(inner)
        self._model: ArrayRecord | None = None
        self._arrays: Arrays = {}
        self._published: Arrays = {}
        self._nonnegative: frozenset[str] | None = None
        self._zeros: Arrays = {}

    def attach(self, ledger: LedgerStore) -> None:
        """See `Exchange.attach`."""
        self.ledger, self.session = ledger, None

    def begin(self, model: Arrays) -> Arrays:
        """See `Exchange.begin`."""
        self.layout = Layout.of(model)
        upload = self.method.upload_for(self.layout)
        if upload.config["id"] != "dense":
            require_elements(self.layout.num_params)  # before devices train for hours
        return self.method.downlink.begin(model)

    def open(self, phase: Phase, messages: Sequence[Message]) -> Sequence[Message]:
        """See `Exchange.open`."""
        if not messages:
            return messages
        keys, model = self.model_of(messages)
        session = self._session_at(model)
        downlink = self.method.downlink
        phase.layout = self.layout
        headers = session.open_phase(
            [message.metadata.dst_node_id for message in messages],
            train=phase.is_train,
            changes_from=downlink.bases,
            newcomer=downlink.newcomer,
        )
        devices = [Device(n, h, session.row(n)) for n, h in headers.items()]
        plans = self.method.plan(phase, devices)
        asked = []
        for message, key, device in zip(messages, keys, devices, strict=True):
            plan = plans[device.node_id]
            fitted = self._fitting.fit(device, plan, self.layout, self._published)
            if fitted is None:
                continue
            plan = fitted.plan
            header = self.memory.told(fitted.device.header, use=plan.use_memory)
            if phase.is_train and self.method.payload != MODEL_PAYLOAD:
                header = self._too_long.told(header, phase.longest)
            device = replace(fitted.device, header=header)
            content = packed(
                message.content,
                key,
                device,
                plan,
                self.method,
                is_train=phase.is_train,
                max_residual_age=self._max_residual_age,
                whole=fitted.whole,
            )
            phase.requests[device.node_id] = Request(
                device.node_id,
                key,
                self._arrays,
                others(message.content, key),
                message_nbytes(content),
                Work.of(content),
                plan,
                device,
            )
            message.content = content
            asked.append(message)
        return asked

    def accept(self, phase: Phase, node_id: int, message: Message) -> Opened:
        """See `Exchange.accept`."""
        request = phase.requests[node_id]
        content = message.content.copy()
        if note_of(content) is None:
            raise CodecError(NO_MOD)
        report, header = DeviceReport.read(content)
        content = without_note(content)
        key = upload_key(phase, request, content)
        if key and self.layout:
            require_frame_size(arrays_in(content)[key], self.layout)
        frame = record_to_frame(arrays_in(content)[key]) if key else None
        info = None if frame is None else inspect_frame(frame)
        assert self.session is not None
        verdict = self.session.accept(node_id, header, info, can=report.can_bytes)
        if not verdict.counts:
            if header.status in NOT_NOW:
                raise not_now(header, verdict.reason, report)
            raise CodecError(verdict.reason)
        reply = Reply(
            node_id,
            message,
            content,
            weight=self.weight_of(phase, content),
            report=report,
            key=key,
            source=message.content,
        )
        content.update(plain_others(content, key, most_reply_bytes(request)))
        if not key:
            return Opened(reply)
        del content[key]
        steps = partial(self._decode, phase, reply), partial(self._finish, phase, reply)
        return Opened(reply, *steps)

    def _decode(self, phase: Phase, reply: Reply) -> CodecState:
        decoded, after = self._decoded(phase, reply)
        self._set_update(phase, reply, decoded)
        return after

    def _finish(self, phase: Phase, reply: Reply, after: CodecState) -> None:
        device = phase.requests[reply.node_id].device
        assert device is not None
        self.memory.opened(device.header.device)
        self.memory.stage(reply.node_id, after)
        self.method.check(reply)

    def decode_again(self, phase: Phase, reply: Reply) -> dict[str, Array]:
        """See `Exchange.decode_again`."""
        decoded, _ = self._decoded(phase, reply)
        return self._relative(decoded)

    def withdraw(self, node_id: int, reason: str) -> None:
        """See `Exchange.withdraw`."""
        if self.session is not None and node_id in self.session.accepted:
            self.session.withdraw(node_id, reason)
        self.memory.drop(node_id)

    def publish(self, phase: Phase, made: ArrayRecord) -> ArrayRecord:
        """See `Exchange.publish`."""
        assert self.session is not None
        model, sent = made, self._published
        arrays = self._wire(made)
        # Masks of minus infinity and the like are as they were; the rest is finite.
        kept = keep_sign(without_non_finite(arrays, sent), phase.nonnegative)
        finished = with_non_finite(self.method.finish(kept), sent)
        if any(finished[name] is not array for name, array in arrays.items()):
            arrays = self._cast(finished)
            model = widened_record(finished)
        self.method.downlink.publish(arrays, self.session.head.version[0] + 1)
        return model

    def present(self, phase: Phase) -> Collection[Device]:
        """See `Exchange.present`."""
        session = self.session
        if session is None:
            return ()
        return [
            Device(node_id, request.device.header, session.row(node_id))
            for node_id, request in phase.requests.items()
            if request.device is not None
        ]

    def note(self, outcome: Outcome) -> None:
        """See `Exchange.note`."""
        assert self.session is not None
        for node_id, facts in outcome.facts.items():
            self.session.note(node_id, facts)

    def close(
        self,
        phase: Phase,
        model: ArrayRecord | None,
        *,
        inner: StrategyState | None,
        wrapper: StrategyState | None,
    ) -> None:
        """See `Exchange.close`."""
        session = self.session
        if session is None:
            return
        rows = {n: session.row(n) for n in phase.too_long | phase.replies.keys()}
        self._too_long.note(phase, {n: r.device for n, r in rows.items() if r})
        if model is None:
            self.memory.forget_phase()
            session.close_phase()
            return
        rows = {node_id: session.row(node_id) for node_id in session.accepted}
        self.memory.commit({n: row.device for n, row in rows.items() if row})
        self._take(model, phase.model)
        session.close_phase(
            self.method.downlink.version,
            Checkpoint(
                phase.server_round,
                phase.model,
                inner,
                wrapper,
                self.memory.to_state() if inner is not None else {},
            ),
        )

    def notes(self) -> Sequence[str]:
        """See `Exchange.notes`."""
        return (*self.method.notes(), *self.memory.notes())

    def state(self) -> StrategyState:
        """See `Exchange.state`."""
        return self.method.state()

    def restore(self, checkpoint: Checkpoint, ledger: LedgerStore) -> None:
        """See `Exchange.restore`."""
        self.memory.from_state(checkpoint.uploads)
        if checkpoint.wrapper is not None:
            self.method.restore(checkpoint.wrapper, ledger.facts())

    def _session_at(self, model: ArrayRecord) -> ServerSession:
        """Return the session, at the model that is to be sent."""
        session, downlink = self.session, self.method.downlink
        if session is None:
            head = self.ledger.head()
            version = downlink.version
            if version is None or head is None or version != head.version:
                number = 0 if head is None else head.version[0]
                version = downlink.publish(self._wire(model), number)
            self.session = session = ServerSession(
                self.ledger,
                now=self._sources.now(),
                new_id=self._sources.new_id,
                initial=version,
            )
            replaced = version != session.head.version
            self._take(model, record_to_arrays(model))
        else:
            replaced = not is_same_model(self._model, model)
        if replaced:  # by the caller: a version of its own
            version = downlink.publish(self._wire(model), session.head.version[0] + 1)
            session.open_phase([])
            session.close_phase(version)
            self._take(model, record_to_arrays(model))
        return session

    def _take(self, model: ArrayRecord, arrays: Arrays) -> None:
        self._model, self._arrays, self._zeros = model, arrays, zeros_like(arrays)
        self._published = self.method.downlink.held(self._cast(self._arrays))
        self._nonnegative = nonnegative(self._published)

    def _wire(self, model: ArrayRecord) -> dict[str, Array]:
        return self._cast(record_to_arrays(model))

    def _cast(self, arrays: Arrays) -> dict[str, Array]:
        self.layout = self.layout or Layout.of(arrays)
        return cast_like(self.layout, arrays)

    def _decoded(self, phase: Phase, reply: Reply) -> tuple[Arrays, CodecState]:
        request = phase.requests[reply.node_id]
        assert request.plan is not None
        assert request.device is not None
        assert reply.source is not None
        layout = self.layout or Layout.of(request.sent)
        is_model = self.method.payload == MODEL_PAYLOAD
        expected = CodecState(layout if is_model else update_layout(layout))
        frame = record_to_frame(arrays_in(reply.source)[reply.key])
        info = inspect_frame(frame)
        if is_model and info.layout_digest != layout.digest and "TABL" in info.sections:
            if info.sections["TABL"] > len(layout.to_bytes()):  # before it is parsed
                raise CodecError(
                    "a part of the model names more tensors than the model"
                )
            part, after = request.plan.upload.decode(
                frame, max_bytes=max(layout.nbytes, 1)
            )
            return completed(part, self._published), after
        known = self.memory.get(request.device.header.device, expected)
        return request.plan.upload.decode(
            frame, known, base=self._published, shared=True
        )

    def _set_update(self, phase: Phase, reply: Reply, decoded: Arrays) -> None:
        sent = phase.requests[reply.node_id].sent
        reply.counted = change_of_others(decoded, sent)
        reply.base, base, names = sent, self._published, self._nonnegative
        if self.method.payload == MODEL_PAYLOAD:
            reply.length = length(difference(decoded, sent))
            reply.base = base = self._zeros
            names = None
        reply.update = self._relative(decoded)
        reply.length = reply.length or length(reply.update)
        reply.nonnegative = nonnegative_sum(base, reply.update, names)

    def _relative(self, decoded: Arrays) -> dict[str, Array]:
        """Return what is averaged: whole models relative to zeros.

        Relative to what was sent, the mean of weights that are zero on every device
        would not be zero but a rounding error.
        """
        if self.method.payload == MODEL_PAYLOAD:
            return difference(decoded, self._zeros)
        if self._clipping:
            return clip(decoded, self._clipping.clipping_norm)
        return dict(decoded)
