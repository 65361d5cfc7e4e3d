"""Devices that fail: the real mod and app of each, between two durable states."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

from flwr.app import Context, Message, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import readdress
from flwr_caesar.runner.inline import through_the_wire
from flwr_caesar.sync import context_store
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.protocol import UPDATE, DownloadHeader
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import Plan

from .app import FaultApp
from .chance import Chance
from .control_law import ControlLaw
from .law import Holder, Law
from .plan import DEVICE_EVENTS, DEVICE_FAULTS
from .tampering import Operator
from .upload_law import Arrays, UploadLaw, parsed

_RUN_ID = 1


@contextmanager
def unreadable() -> Iterator[None]:
    """Let the disk fail when a device's state is read, for once."""

    def failing(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with mock.patch.object(context_store, "unseal", failing):
        yield


@dataclass(frozen=True)
class Request:
    """A message on its way to a device.

    Parameters
    ----------
    message_id : str
        By which the server waits for the reply.
    node_id : int
        Where it goes.
    message_type : str
        Flower's.
    content : RecordDict
        What it says.
    epoch, phase : int
        When it was made.
    intact : bool
        Whether nobody changed it.
    """

    message_id: str
    node_id: int
    message_type: str
    content: RecordDict
    epoch: int
    phase: int
    intact: bool = True

    def message(self) -> Message:
        """Return it as a device receives it."""
        message = Message(
            through_the_wire(self.content),
            dst_node_id=self.node_id,
            message_type=self.message_type,
        )
        readdress(message, message_id=self.message_id)
        return message


@dataclass(frozen=True)
class Answer:
    """A reply on its way to the server.

    Parameters
    ----------
    request : Request
        What it answers, or pretends to.
    content : RecordDict, optional
        What it says; `None` for an error.
    error : str
        Why there is none.
    honest : bool
        Whether the server has no reason not to use it: a device's own update, as it
        was asked for and as it was sent.
    poison : str
        What a hostile node did to its values; see `flwr_caesar.faults.poison`.
    """

    request: Request
    content: RecordDict | None
    error: str = ""
    honest: bool = False
    poison: str = ""


class FaultDevices:
    """All devices of a run; what is on a device's disk is its `Holder`'s state.

    Parameters
    ----------
    count : int
        How many.
    app : FaultApp
        What they run.
    chance : Chance
        Decides what fails.
    law : Law
        By which they are judged.
    uploads : UploadLaw
        That tells it what they do.
    control : ControlLaw
        For their control variates, if they have any.

    Attributes
    ----------
    holders : list of Holder
        The devices.
    operator : Operator
        Who tampers with them.
    events : int
        Durable writes, and acts of the operator.
    """

    def __init__(
        self,
        count: int,
        app: FaultApp,
        chance: Chance,
        law: Law,
        uploads: UploadLaw,
        control: ControlLaw,
    ) -> None:
        self.holders = [Holder(number, chance.new_id()) for number in range(count)]
        self.operator = Operator(chance, self.holders, law)
        self.events = 0
        self._app = app
        self._chance = chance
        self._law = law
        self._uploads = uploads
        self._control = control

    def tamper(self) -> None:
        """Let the operator do what he does between two rounds."""
        for holder in self.holders:
            kind = self._chance.pick(DEVICE_EVENTS, count=False)
            before = [each.state for each in self.holders]
            if not kind or not self.operator.act(kind, holder):
                continue
            self._chance.faults[kind] += 1
            self.events += 1
            for old, each in zip(before, self.holders, strict=True):
                if each.state is not old:
                    self._control.lost(old, each.state)

    def ask(self, request: Request) -> Answer | None:
        """Let the device at a node answer; `None` if nothing comes back."""
        for holder in self.holders:
            if holder.node_id == request.node_id:
                return self._ask(holder, request)
        return None

    def _ask(self, holder: Holder, request: Request) -> Answer | None:
        fault = self._chance.pick(DEVICE_FAULTS)
        if fault == "device-crash-before-write":
            return None
        if fault == "device-disk-full":
            return Answer(request, None, "the device's state could not be kept")
        self._app.take_work()
        context = self._context(holder)
        message = request.message()
        try:
            with unreadable() if fault == "device-read-error" else nullcontext():
                reply = self._app.client(message, context)
        except Exception as err:  # as Flower does, the server is told
            return Answer(request, None, f"{type(err).__name__}: {err}")
        try:
            header = Plan.read(request.content)[1]
        except CodecError:
            self._law.report("a device answers a request that is damaged")
            return None
        after = ContextStore(context.state).load(header.lineage)
        if after is None:
            self._law.report("a device answers without having kept a state")
            return None
        worked = self._app.take_work()
        self._judge(holder, request, header, after, worked)
        if fault == "device-crash-after-write":
            return None
        answer = parsed(reply.content)
        honest = (
            request.intact
            and request.phase == self.operator.phase
            and holder.excused_at < 0
            and answer is not None
            and answer.status == UPDATE
        )
        return Answer(request, reply.content, honest=honest)

    def _judge(
        self,
        holder: Holder,
        request: Request,
        header: DownloadHeader,
        after: DeviceState,
        worked: tuple[Arrays, Arrays] | None,
    ) -> None:
        operator, before = self.operator, holder.state
        stale = request.epoch != operator.epoch
        if stale:
            holder.excused_at = max(holder.excused_at, operator.phase)
        ghost = self._uploads.answered(holder, after, header, worked, stale=stale)
        if before is not None and before.token != after.token:
            self._control.lost(before, None)
        self.events += 1
        operator.saved(holder, after, ghost)
        operator.calm(holder, header, epoch=request.epoch, phase=request.phase)
        self._law.check(holder)

    def _context(self, holder: Holder) -> Context:
        context = Context(
            run_id=_RUN_ID,
            node_id=holder.node_id,
            node_config={
                "partition-id": holder.number,
                "num-partitions": len(self.holders),
                "state-dir": "context",
            },
            state=RecordDict(),
            run_config={},
        )
        if holder.state is not None:
            ContextStore(context.state).save(holder.state)
        return context
