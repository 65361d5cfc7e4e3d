"""A Grid on which messages get lost, late, doubled, damaged and forged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from flwr.app import ConfigRecord, Error, Message, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.flower import readdress
from flwr_caesar.runner.inline import InlineGrid, through_the_wire
from flwr_caesar.sync.protocol import (
    NEED_WHOLE,
    UploadHeader,
)
from flwr_caesar.transport import (
    NOTE_KEY,
    DeviceReport,
    Plan,
    frame_to_record,
    note_of,
    record_to_frame,
    require_note,
    with_note,
    without_note,
)

from .app import FaultApp
from .chance import Chance
from .devices import Answer, FaultDevices, Request
from .forgery import forge
from .odds import DEADLINE, MESSAGE_FAULTS, REORDER, SERVER_FAULTS
from .poison import POISONS, poisoned
from .upload_law import parsed

_APP_FAILED = 2
_HOSTILE_NODES = range(1, 4)
_CHANCE_HOSTILE = {"hostile-reply": 0.3}
_CHANCE_KEPT_LATE = 0.7
_MOST_LATE = 200
_MOST_SEEN = 200


_Item = TypeVar("_Item", Request, Answer)


class ServerKilledError(BaseException):
    """The server process ends here; no `except Exception` is to hear of it."""


class FaultGrid(InlineGrid):
    """Carries messages between a strategy and devices, not always well.

    Parameters
    ----------
    app : FaultApp
        Of the devices.
    devices : FaultDevices
        Who answers.
    chance : Chance
        Decides what fails.
    on_open : callable
        Called with the plan of a phase before its messages are carried.

    Attributes
    ----------
    first : dict of int to Answer
        The first answer from each node in this phase: the one that counts.
    asked : frozenset of int
        Nodes that were asked in this phase.
    target : tuple of int and bytes
        The model that the newest requests are about.
    events, changes, resyncs : int
        Messages carried; models sent as a change of another; whole models asked for.
    """

    def __init__(
        self,
        app: FaultApp,
        devices: FaultDevices,
        chance: Chance,
        on_open: Callable[[Plan], None],
    ) -> None:
        super().__init__(app.client, 0)
        self._devices = devices
        self._chance = chance
        self._on_open = on_open
        self._chosen: list[int] = []
        self._late_requests: list[Request] = []
        self._late_answers: list[Answer] = []
        self._arrived: list[Answer] = []
        self._seen: deque[UploadHeader] = deque(maxlen=_MOST_SEEN)
        self._frames: deque[bytes] = deque(maxlen=_MOST_SEEN)
        self._overheard: deque[RecordDict] = deque(maxlen=_MOST_SEEN)
        self.first: dict[int, Answer] = {}
        self.asked: frozenset[int] = frozenset()
        self.target: Any = None
        self.events = self.changes = self.resyncs = 0

    def choose(self, fraction: float) -> None:
        """Let only a fraction of the devices be there, and perhaps hostile nodes."""
        rng = self._chance.random
        nodes = [holder.node_id for holder in self._devices.holders]
        if not self._chance.quiet:
            nodes = rng.sample(nodes, max(1, round(fraction * len(nodes))))
        hostile = (
            node
            for node in _HOSTILE_NODES
            if self._chance.pick(_CHANCE_HOSTILE, count=False)
        )
        self._chosen = sorted([*nodes, *hostile])

    def clear(self) -> None:
        """Lose everything that is late."""
        self._late_requests.clear()
        self._late_answers.clear()
        self._arrived.clear()

    def get_node_ids(self) -> Iterable[int]:
        """Get the ids of the nodes chosen."""
        return list(self._chosen)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages, and let the devices work on those that reach them."""
        operator = self._devices.operator
        operator.phase += 1
        requests = []
        for message in messages:
            (message_id,) = super().push_messages([message])
            taken = self._waiting.pop(message_id)
            requests.append(
                Request(
                    message_id,
                    taken.metadata.dst_node_id,
                    taken.metadata.message_type,
                    taken.content,
                    operator.epoch,
                    operator.phase,
                )
            )
        self.first, self._arrived = {}, []
        self.asked = frozenset(request.node_id for request in requests)
        if requests:
            self._look_at(requests)
            self._carry(requests)
        return [request.message_id for request in requests]

    def pull_messages(
        self,
        message_ids: Iterable[str] | None = None,
        *,
        reply_to_message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]:
        """Return the answers that have arrived."""
        if self._chance.strikes("server-crash-open", SERVER_FAULTS):
            raise ServerKilledError
        wanted = set(message_ids or reply_to_message_ids or ())
        answers: list[Answer] = []
        left: list[Answer] = []
        for answer in self._arrived:
            fits = answer.request.message_id in wanted
            (answers if fits else left).append(answer)
        self._arrived = left
        for answer in answers:
            self.events += 1
            self.first.setdefault(answer.request.node_id, answer)
            self._overhear(answer)
        return [_to_message(answer) for answer in answers]

    def _look_at(self, requests: list[Request]) -> None:
        for request in requests:
            _, header = Plan.read(request.content)
            self.changes += header.base not in (None, header.target)
            self.target = header.target
        self._on_open(Plan.read(requests[0].content)[0])

    def _carry(self, requests: list[Request]) -> None:
        rng = self._chance.random
        wire: list[Request] = []
        for request in sorted(requests, key=lambda request: request.node_id):
            self._post(request, wire, self._late_requests)
        wire += self._some(self._late_requests)
        self._reorder(wire)
        arrived: list[Answer] = []
        for request in wire:
            self.events += 1
            if request.node_id in _HOSTILE_NODES:
                answer = self._forge(request)
            else:
                answer = self._devices.ask(request)
            if answer is not None:
                self._post(answer, arrived, self._late_answers)
        arrived += self._some(self._late_answers)
        arrived = [self._readdressed(answer, requests) for answer in arrived]
        self._reorder(arrived)
        if not self._chance.quiet and rng.random() < DEADLINE * self._chance.scale:
            left = rng.randrange(1 + len(arrived))
            self._chance.faults["deadline-missed"] += len(arrived) - left
            missed = arrived[left:]
            self._late_answers += [replace(a, fault="deadline-missed") for a in missed]
            del arrived[left:], self._late_answers[:-_MOST_LATE]
        self._arrived = arrived

    def _some(self, late: list[_Item]) -> list[_Item]:
        """Take some of what is late off its list."""
        rng = self._chance.random
        count = min(len(late), rng.randrange(1 + len(late)))
        return [late.pop(rng.randrange(len(late))) for _ in range(count)]

    def _readdressed(self, answer: Answer, requests: list[Request]) -> Answer:
        """Let an answer to an earlier phase arrive as one to this phase."""
        if answer.request.phase == self._devices.operator.phase:
            return answer
        at_node = [r for r in requests if r.node_id == answer.request.node_id]
        now = self._chance.random.choice(at_node or requests)
        return replace(answer, request=now, honest=False, poison="")

    def _post(self, item: _Item, wire: list[_Item], late: list[_Item]) -> None:
        fault = self._chance.pick(MESSAGE_FAULTS)
        if fault:
            item = _struck(item, fault)
        if fault == "drop":
            return
        if fault == "delay":
            late.append(item)
            del late[:-_MOST_LATE]
            return
        if fault == "duplicate":
            again = wire if self._chance.random.random() < _CHANCE_KEPT_LATE else late
            again.append(item)
        if fault in ("corrupt-frame", "corrupt-header") and item.content is not None:
            damage = self._damage_frame if "frame" in fault else self._damage_header
            item = _changed(item, damage(item.content))
        wire.append(item)

    def _reorder(self, items: list[Any]) -> None:
        if len(items) > 1 and not self._chance.quiet:
            for index in range(len(items)):
                if self._chance.random.random() < REORDER * self._chance.scale:
                    self._chance.faults["reorder"] += 1
                    items.append(items.pop(index))

    def _damage_frame(self, content: RecordDict) -> RecordDict:
        changed = RecordDict(dict(content.items()))
        frames = sorted(content.array_records)
        key = self._chance.random.choice(frames) if frames else "arrays"
        frame = record_to_frame(content.array_records[key]) if frames else b""
        changed[key] = frame_to_record(self._chance.flip(frame))
        return changed

    def _damage_header(self, content: RecordDict) -> RecordDict:
        value = self._chance.tamper(require_note(content))
        if isinstance(value, bytes):
            return with_note(content, value, leads=_led(content))
        # Another type than bytes: there is no note that says anything.
        leads, plain = _led(content), without_note(content)
        if leads:
            frame = record_to_frame(plain.array_records[leads])
            plain[leads] = frame_to_record(frame)
        if value is not None:
            plain[NOTE_KEY] = ConfigRecord({"": value})
        return plain

    def _forge(self, request: Request) -> Answer | None:
        """Make up a reply, or one of what was overheard."""
        rng = self._chance.random
        try:
            plan, header = Plan.read(request.content)
        except CodecError:
            return None
        kind = self._chance.pick(POISONS, count=False) if plan.upload else ""
        made = poisoned(self._chance, kind, header, plan) if kind else None
        if made is not None:
            self._chance.faults[kind] += 1
            poison = kind if request.phase == self._devices.operator.phase else ""
            return Answer(request, made, poison=poison)
        if not self._overheard:
            return None
        self._chance.faults["hostile-reply"] += 1
        forged, _ = forge(self._chance, header, self._seen)
        content = RecordDict(dict(rng.choice(self._overheard).items()))
        try:
            report, _ = DeviceReport.read(content)
        except CodecError:
            report = DeviceReport()
        if self._frames:
            frame = rng.choice(self._frames)
            if rng.random() < 0.5:
                frame = stamp(
                    frame, lineage=header.lineage, base_version=header.target[0]
                )
            content["arrays"] = frame_to_record(frame)
        leads = "arrays" if "arrays" in content.array_records else ""
        said = with_note(content, report.note(forged), leads=leads)
        return Answer(request, said, fault="hostile-reply")

    def _overhear(self, answer: Answer) -> None:
        if answer.content is None:
            return
        self._overheard.append(answer.content)
        header = parsed(answer.content)
        if header is None:
            return
        self._seen.append(header)
        self.resyncs += header.status == NEED_WHOLE
        for record in answer.content.array_records.values():
            with suppress(CodecError):
                self._frames.append(record_to_frame(record))


def _led(content: RecordDict) -> str:
    """Return which frame may lead a note: that of a reply."""
    bare = note_of(without_note(content))
    return next(iter(content.array_records), "") if bare is not None else ""


def _to_message(answer: Answer) -> Message:
    request = answer.request.message()
    if answer.content is None:
        reply = Message(Error(_APP_FAILED, answer.error), reply_to=request)
    else:
        reply = Message(through_the_wire(answer.content), reply_to=request)
    readdress(
        reply,
        src_node_id=answer.request.node_id,
        reply_to_message_id=answer.request.message_id,
    )
    return reply


def _struck(item: _Item, fault: str) -> _Item:
    return item if isinstance(item, Request) else replace(item, fault=fault)


def _changed(item: _Item, content: RecordDict) -> _Item:
    if isinstance(item, Request):
        return replace(item, content=content, intact=False)
    return replace(item, content=content, honest=False, poison="")
