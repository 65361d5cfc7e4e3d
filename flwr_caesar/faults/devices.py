"""Devices that fail: the real mod and app of each, between two durable states."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from flwr_caesar.clients.store import IN_CONTEXT
from flwr_caesar.codec import CodecError
from flwr_caesar.flower import readdress
from flwr_caesar.runner.inline import through_the_wire
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.protocol import STALE, UPDATE, DownloadHeader
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import Plan

from .app import FaultApp
from .chance import Chance
from .control_law import ControlLaw
from .disks import Disk, same_state
from .law import Holder, Law
from .machines import Machines
from .met import Met
from .odds import DEVICE_EVENTS, DEVICE_FAULTS, READ_ERROR
from .upload_law import Arrays, UploadLaw, parsed

_RUN_ID = 1
# The others keep their states in Flower's Context.
_ONE_DISK_IN = 3
_FAULTS_ON_DISK = {k: v for k, v in DEVICE_FAULTS.items() if k != READ_ERROR}


class UnreadableRecords(RecordDict):
    """What Flower keeps for a device, on a disk that fails once when it is read."""

    _has_failed = False

    def get(self, key: str, default: Any = None) -> Any:
        """Fail, if there is such a record and this is the first time."""
        if key in self and not self._has_failed:
            self._has_failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().get(key, default)


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
    fault : str
        What befell it on its way; empty for nothing.
    """

    request: Request
    content: RecordDict | None
    error: str = ""
    honest: bool = False
    poison: str = ""
    fault: str = ""


class FaultDevices(Machines):
    """Devices that run the real mod and an app.

    Parameters
    ----------
    count, chance, law, folder
        See `Machines`.
    app : FaultApp
        What they run.
    uploads : UploadLaw
        That tells the law what they do.
    control : ControlLaw
        For their control variates, if they have any.

    Attributes
    ----------
    met : Met
        What faults of disks have met.
    """

    def __init__(
        self,
        count: int,
        app: FaultApp,
        chance: Chance,
        law: Law,
        uploads: UploadLaw,
        control: ControlLaw,
        folder: Path,
    ) -> None:
        super().__init__(count, chance, law, folder, one_disk_in=_ONE_DISK_IN)
        self.met = Met()
        self._app = app
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
        disk = self._disks.get(holder.number)
        fault = self._chance.pick(_FAULTS_ON_DISK if disk else DEVICE_FAULTS)
        if fault == "device-crash-before-write":
            return None
        if fault == "device-disk-full":
            return Answer(request, None, "the device's state could not be kept")
        kind = ""
        if disk:
            disk.put(holder.state)
            kind = "" if fault else disk.draw()
        self._app.take_work()
        context = self._context(holder, disk)
        if fault == READ_ERROR:
            context.state = UnreadableRecords(dict(context.state))
        reply: Message | None = None
        error = ""
        try:
            with disk.struck(kind) if disk else nullcontext():
                reply = self._app.client(request.message(), context)
        except Exception as err:  # as Flower does, the server is told
            error = f"{type(err).__name__}: {err}"
        try:
            header = Plan.read(request.content)[1]
        except CodecError:
            if reply is not None:
                self._law.report("a device answers a request that is damaged")
            return None if reply is not None else Answer(request, None, error)
        if disk:
            after = disk.load(header.lineage)
            self._meet(kind, error)
        else:
            kept = RecordDict(dict(context.state))  # as a healthy machine reads it
            after = ContextStore(kept).load(header.lineage)
        if reply is None and (not disk or same_state(after, holder.state)):
            return Answer(request, None, error)
        if after is None:
            self._law.report("a device answers without having kept a state")
            return None
        worked = self._app.take_work()
        self._judge(holder, request, header, after, worked)
        if reply is None:  # the disk failed after the state was committed
            return Answer(request, None, error)
        if fault == "device-crash-after-write":
            return None
        answer = parsed(reply.content)
        status = "" if answer is None else answer.status
        expected = (
            request.intact
            and request.phase == self.operator.phase
            and holder.excused_at < 0
        )
        if expected and status == STALE and request.epoch == self.operator.epoch:
            self._law.report(f"device {holder.number} takes a request for an old one")
        honest = expected and status == UPDATE
        return Answer(request, reply.content, honest=honest)

    def _meet(self, kind: str, error: str) -> None:
        """Take note of what a fault of a disk met; it may not undo a state."""
        if not kind:
            return
        if "StateError" in error:
            self.met.refused_by_store(kind, error)
        elif not error:
            self.met.held(kind)

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

    def _context(self, holder: Holder, disk: Disk | None) -> Context:
        context = Context(
            run_id=_RUN_ID,
            node_id=holder.node_id,
            node_config={
                "partition-id": holder.number,
                "num-partitions": len(self.holders),
                "state-dir": str(disk.root) if disk else IN_CONTEXT,
            },
            state=RecordDict(),
            run_config={},
        )
        if holder.state is not None and not disk:
            ContextStore(context.state).save(holder.state)
        return context
