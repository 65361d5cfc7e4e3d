"""A strategy whose arrays travel as frames."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from logging import INFO
from os import PathLike
from typing import Any, Unpack

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from flwr_caesar.codec import (
    Codec,
    CodecError,
    CodecState,
    Layout,
    difference,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.layout import Array, Arrays, to_dtype
from flwr_caesar.records import DeviceRecord
from flwr_caesar.sync.ledger import Checkpoint, SqliteLedger
from flwr_caesar.sync.ledger_api import LedgerStore
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.protocol import DownloadHeader, UploadHeader
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.sync.state import MODEL_PAYLOAD, UPDATE_PAYLOAD
from flwr_caesar.sync.strategy_state import Learned, StrategyState
from flwr_caesar.transport import (
    RECORD_KEY,
    Plan,
    arrays_to_record,
    record_to_arrays,
    record_to_frame,
    require_record,
)

from .downlink import Downlink
from .downlinks import get_downlink
from .privacy import (
    clip,
    clips_on_devices,
    require_clipped_uploads,
    require_no_accountant,
)
from .uplink_memory import UplinkMemory
from .wrapper import StrategyWrapper, WrapperOptions


@dataclass(frozen=True)
class DevicePlan:
    """What one device is asked to do in a phase.

    Parameters
    ----------
    upload : Codec
        For its update.
    config : mapping
        What the app sees besides the inner strategy's configuration, such as
        ``"batch-size"`` and ``"local-steps"``.
    settings : mapping
        Of the device part.
    part : str
        The device part; empty for the downlink's.
    ask_labels : bool
        Whether to ask for its label counts.
    call_app : bool
        Whether its app sees the message.
    """

    upload: Codec
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    ask_labels: bool = False
    call_app: bool = True


def cast_like(layout: Layout, arrays: Arrays) -> dict[str, Array]:
    """Return arrays in the dtypes of the first model; integers are rounded.

    FedAvg makes float64 of integer counters, and adaptive optimisers of float16. On the
    wire a model keeps the tensors it began with, so that every version and every
    update of a history has one layout.

    Raises
    ------
    ValueError
        If the tensors differ in name or shape.
    """
    if not layout.same_shapes(Layout.of(arrays)):
        raise ValueError(
            "the aggregated model has other tensors than the initial one; it must keep "
            "their names, order and shapes"
        )
    cast = {}
    for spec in layout.tensors:
        array, dtype = arrays[spec.name], to_dtype(spec.dtype)
        if array.dtype != dtype:
            if not spec.is_float:
                array = np.rint(array)
            array = np.asarray(array).astype(dtype)
        cast[spec.name] = array
    return cast


class FramedStrategy(StrategyWrapper):
    """Frames both ways: the model down by a downlink, updates up by a codec.

    A device that holds the model already is sent a reference to it. Updates are
    acknowledged by the next download; what was not applied returns to the device's
    residual (see docs/sync.md).

    Subclasses plan for each device after sampling by overriding `_plan_phase`.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy; it sends one ArrayRecord, the same to all devices.
    downlink : Downlink, optional
        How the model goes down; by default the whole of it, exactly.
    upload : Codec, optional
        Codec of the updates; exact by default.
    error_feedback : bool
        Whether devices keep what the upload codec left out.
    payload : {"update", "model"}
        Whether devices encode their update or their model.
    upload_memory : int
        Most bytes that the server spends on what an upload codec remembers of devices;
        a device that it has forgotten sends its next update without prediction.
    **options
        See `WrapperOptions`.

    Raises
    ------
    ValueError
        If an option is out of range, or the inner strategy has devices clip their
        updates and what they send would not be what they clipped.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        downlink: Downlink | None = None,
        upload: Codec | None = None,
        error_feedback: bool = False,
        payload: str = UPDATE_PAYLOAD,
        upload_memory: int = 0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        require_clipped_uploads(
            strategy, error_feedback=error_feedback, payload=payload
        )
        super().__init__(strategy, **options)
        self.downlink = downlink or get_downlink("whole")
        self.upload = upload or get_codec("dense")
        self.error_feedback = error_feedback
        self.payload = payload
        self._memory = UplinkMemory(upload_memory)
        self._checkpoint: str | PathLike[str] | None = options.get("checkpoint")
        self._ledger: LedgerStore = MemoryLedger()
        self._session: ServerSession | None = None
        self._learned: Learned | None = None
        self._model: ArrayRecord | None = None
        self._headers: dict[int, DownloadHeader] = {}
        self._plans: dict[int, DevicePlan] = {}
        self._layout: Layout | None = None
        self._zeros: Arrays = {}
        self._is_train = True

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
        """Run federated learning, from the checkpoint if there is one.

        `num_rounds` counts from the first round of the history: a run of ten rounds
        that was stopped after six does four more.

        Raises
        ------
        StateError
            If the checkpoint cannot be trusted, or another server uses it.
        ValueError
            If a privacy accountant would begin anew after the checkpoint.
        """
        self._layout = Layout.of(record_to_arrays(initial_arrays))
        self._learned = self._learned or Learned(self.strategy)
        with ExitStack() as stack:
            if self._checkpoint is not None:
                ledger = stack.enter_context(SqliteLedger(self._checkpoint))
                self._ledger, self._session = ledger, None
                checkpoint = ledger.checkpoint()
                if checkpoint is not None:
                    require_no_accountant(self.strategy)
                    initial_arrays = arrays_to_record(checkpoint.model)
                    self._rounds_before = checkpoint.round
                    if checkpoint.strategy is not None:
                        self._learned.restore(checkpoint.strategy)
                    self._memory.from_state(checkpoint.uploads)
                    if checkpoint.wrapper is not None:
                        self._restore(checkpoint.wrapper)
                    log(INFO, "Resumed after round %d", checkpoint.round)
            if self._rounds_before == 0:
                begun = self.downlink.begin(record_to_arrays(initial_arrays))
                initial_arrays = arrays_to_record(begun)
            return super().start(
                grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                evaluate_fn,
            )

    def summary(self) -> None:
        """Log the codecs and the settings of the inner strategy."""
        log(INFO, "\t├──> Download: %s", self.downlink)
        feedback = " with error feedback" if self.error_feedback else ""
        log(INFO, "\t├──> Upload: %s%s", self.upload.config, feedback)
        super().summary()

    def _plan_phase(
        self, server_round: int, node_ids: list[int], *, is_train: bool
    ) -> dict[int, DevicePlan]:
        """Return the plan of each device that the inner strategy chose.

        What is known of a device is ``self._session.row(node_id)``.
        """
        return {node_id: DevicePlan(self.upload) for node_id in node_ids}

    def _learn(self, server_round: int, devices: Mapping[int, DeviceRecord]) -> None:
        """Take in what the replies of a phase tell, before it is committed.

        Their reports are in ``self._reports``, their headers were judged by
        ``self._session``.
        """

    def _capture(self) -> StrategyState:
        """Return what a restarted server needs of this strategy."""
        return self.downlink.state()

    def _restore(self, state: StrategyState) -> None:
        """Go on from what `_capture` returned."""
        self.downlink.restore(state)

    def _open_phase(
        self, server_round: int, messages: list[Message], *, is_train: bool
    ) -> None:
        super()._open_phase(server_round, messages, is_train=is_train)
        self._is_train = is_train
        self._headers, self._plans = {}, {}
        self._zeros = {}
        if not messages:
            return
        session = self._published(_only_model(messages))
        nodes = [message.metadata.dst_node_id for message in messages]
        headers = session.open_phase(
            nodes,
            train=is_train,
            changes_from=self.downlink.bases,
            newcomer=self.downlink.newcomer,
        )
        self._headers = {
            node_id: replace(header, memory=self._memory.digest(header.device))
            for node_id, header in headers.items()
        }
        self._plans = self._plan_phase(server_round, nodes, is_train=is_train)

    def _pack(self, node_id: int, content: RecordDict) -> RecordDict:
        header, device = self._headers[node_id], self._plans[node_id]
        (key,) = content.array_records
        packed = RecordDict(dict(content.items()))
        if header.base == header.target:
            del packed[key]
        else:
            packed[key] = self.downlink.frame(node_id, header)
        if device.config:
            for name, record in content.config_records.items():
                packed[name] = ConfigRecord({**record, **device.config})
        plan = Plan(
            record=key,
            upload=device.upload.config if self._is_train else {},
            error_feedback=self.error_feedback and self._is_train,
            max_residual_age=self._max_residual_age,
            payload=self.payload,
            exact=self.downlink.exact,
            call_app=device.call_app,
            part=device.part or self.downlink.part,
            settings=device.settings,
            start=self.downlink.start if header.base == self.downlink.newcomer else {},
            ask_labels=device.ask_labels,
        )
        packed[RECORD_KEY] = plan.to_record(header)
        return packed

    def _accept(self, node_id: int, content: RecordDict) -> None:
        session = self._session
        if session is None or node_id not in self._headers:
            raise CodecError("no request to this node is open")
        header = UploadHeader.from_dict(require_record(content))
        records = list(content.array_records.values())
        if len(records) > 1:
            raise CodecError("reply has more than one ArrayRecord")
        info = inspect_frame(record_to_frame(records[0])) if records else None
        verdict = session.accept(node_id, header, info)
        if not verdict.counts:
            raise CodecError(verdict.reason)

    def _withdraw(self, node_id: int, reason: str) -> None:
        if self._session is not None and node_id in self._session.accepted:
            self._session.withdraw(node_id, reason)
        self._memory.drop(node_id)

    def _base(self, sent: Arrays) -> Arrays:
        """Return the model sent; zeros for whole models, which are averaged as such.

        Relative to what was sent, the mean of weights that are zero on every device
        would not be zero but a rounding error.
        """
        if self.payload != MODEL_PAYLOAD:
            return sent
        if not self._zeros:
            self._zeros = {
                name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
                for name, array in sent.items()
            }
        return self._zeros

    def _open_record(
        self, node_id: int, record: ArrayRecord, base: Arrays
    ) -> dict[str, Array]:
        layout = self._layout or Layout.of(base)
        is_model = self.payload == MODEL_PAYLOAD
        expected = CodecState(layout if is_model else update_layout(layout))
        frame = record_to_frame(record)
        known = self._memory.get(self._headers[node_id].device, expected)
        decoded, after = self._plans[node_id].upload.decode(frame, known)
        self._memory.stage(node_id, after)
        if is_model:
            return difference(decoded, base)
        clipping = clips_on_devices(self.strategy)
        return clip(decoded, clipping.clipping_norm) if clipping else decoded

    def _close_phase(
        self,
        server_round: int,
        arrays: ArrayRecord | None,
        devices: Mapping[int, DeviceRecord],
    ) -> None:
        if self._session is None:
            return
        self._learn(server_round, devices)
        if arrays is None:
            self._memory.forget_phase()
            self._session.close_phase()
            return
        rows = {n: self._session.row(n) for n in self._session.accepted}
        self._memory.commit({n: row.device for n, row in rows.items() if row})
        self._model = arrays
        version = self._publish(arrays, self._session.head.version[0] + 1)
        self._session.close_phase(
            version,
            Checkpoint(
                server_round,
                record_to_arrays(arrays),
                self._learned.capture() if self._learned else None,
                self._capture(),
                self._memory.to_state(),
            ),
        )

    def _published(self, model: ArrayRecord) -> ServerSession:
        """Return the session, at the model that is to be sent."""
        session = self._session
        if session is None:
            head = self._ledger.head()
            version = self.downlink.version
            if version is None or head is None or version != head.version:
                version = self._publish(model, 0 if head is None else head.version[0])
            session = ServerSession(
                self._ledger,
                now=time.time_ns(),
                new_id=lambda: secrets.randbits(64) or 1,
                initial=version,
            )
            replaced = version != session.head.version
        else:
            replaced = self._model is not model
        if replaced:  # by the caller: a version of its own
            version = self._publish(model, session.head.version[0] + 1)
            session.open_phase([])
            session.close_phase(version)
        self._session, self._model = session, model
        return session

    def _publish(self, model: ArrayRecord, number: int) -> tuple[int, bytes]:
        arrays = record_to_arrays(model)
        self._layout = self._layout or Layout.of(arrays)
        return self.downlink.publish(cast_like(self._layout, arrays), number)


def _only_model(messages: list[Message]) -> ArrayRecord:
    """Return the model that all messages carry.

    Raises
    ------
    ValueError
        If they carry none, several, or different ones.
    """
    models = {
        id(record): record
        for message in messages
        for record in message.content.array_records.values()
    }
    counts = {len(message.content.array_records) for message in messages}
    if len(models) != 1 or counts != {1}:
        raise ValueError(
            "the inner strategy must send one ArrayRecord, the same to all devices; "
            f"it sent {len(models)}"
        )
    return next(iter(models.values()))
