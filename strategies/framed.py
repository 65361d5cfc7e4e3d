"""A strategy whose arrays travel as frames."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from logging import INFO
from os import PathLike
from typing import Unpack

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
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.layout import Array, Arrays, to_dtype
from flwr_caesar.sync.ledger import Checkpoint, SqliteLedger
from flwr_caesar.sync.ledger_api import LedgerStore, Version
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.protocol import (
    DownloadHeader,
    UploadHeader,
    model_digest,
)
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.sync.strategy_state import capture, restore
from flwr_caesar.transport import (
    RECORD_KEY,
    Plan,
    arrays_to_record,
    frame_to_record,
    record_to_arrays,
    record_to_frame,
    require_record,
)

from .wrapper import StrategyWrapper, WrapperOptions


@dataclass(frozen=True)
class Publication:
    """A model as devices get it.

    Parameters
    ----------
    model : ArrayRecord
        The server's own.
    frame : ArrayRecord
        The whole of it, encoded.
    version : tuple of int and bytes
        Its number, and the digest of what the frame decodes to.
    """

    model: ArrayRecord
    frame: ArrayRecord
    version: Version


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
    """Frames both ways: the model down by one codec, updates up by another.

    A device that holds the model already is sent a reference to it. Updates are
    acknowledged by the next download; what was not applied returns to the device's
    residual (see docs/sync.md).

    Parameters
    ----------
    strategy : Strategy
        The inner strategy; it sends one ArrayRecord, the same to all devices.
    download : Codec
        Codec of the model.
    upload : Codec
        Codec of the updates.
    error_feedback : bool
        Whether devices keep what the upload codec left out.
    **options
        See `WrapperOptions`.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        download: Codec | None = None,
        upload: Codec | None = None,
        error_feedback: bool = False,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(strategy, **options)
        self.download = download or get_codec("dense")
        self.upload = upload or get_codec("dense")
        self.error_feedback = error_feedback
        self._checkpoint: str | PathLike[str] | None = options.get("checkpoint")
        self._ledger: LedgerStore = MemoryLedger()
        self._session: ServerSession | None = None
        self._publication: Publication | None = None
        self._headers: dict[int, DownloadHeader] = {}
        self._layout: Layout | None = None
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
        """
        self._layout = Layout.of(record_to_arrays(initial_arrays))
        with ExitStack() as stack:
            if self._checkpoint is not None:
                ledger = stack.enter_context(SqliteLedger(self._checkpoint))
                self._ledger, self._session = ledger, None
                checkpoint = ledger.checkpoint()
                if checkpoint is not None:
                    initial_arrays = arrays_to_record(checkpoint.model)
                    self._rounds_before = checkpoint.round
                    if checkpoint.strategy is not None:
                        restore(self.strategy, checkpoint.strategy)
                    log(INFO, "Resumed after round %d", checkpoint.round)
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
        log(INFO, "\t├──> Download: %s", self.download.config)
        feedback = " with error feedback" if self.error_feedback else ""
        log(INFO, "\t├──> Upload: %s%s", self.upload.config, feedback)
        super().summary()

    def _open_phase(self, messages: list[Message], *, is_train: bool) -> None:
        super()._open_phase(messages, is_train=is_train)
        self._is_train = is_train
        self._headers = {}
        if messages:
            session = self._published(_only_model(messages))
            nodes = [message.metadata.dst_node_id for message in messages]
            self._headers = session.open_phase(nodes, train=is_train)

    def _pack(self, node_id: int, content: RecordDict) -> RecordDict:
        header = self._headers[node_id]
        (key,) = content.array_records
        packed = RecordDict(dict(content.items()))
        if header.base == header.target or self._publication is None:
            del packed[key]
        else:
            packed[key] = self._publication.frame
        plan = Plan(
            record=key,
            upload=self.upload.config if self._is_train else None,
            error_feedback=self.error_feedback and self._is_train,
            max_residual_age=self._max_residual_age,
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

    def _open_record(self, record: ArrayRecord, base: Arrays) -> dict[str, Array]:
        expected = CodecState(update_layout(self._layout or Layout.of(base)))
        update, _ = self.upload.decode(record_to_frame(record), expected)
        return update

    def _close_phase(self, server_round: int, arrays: ArrayRecord | None) -> None:
        if self._session is None:
            return
        if arrays is None:
            self._session.close_phase()
            return
        publication = self._publish(arrays, self._session.head.version[0] + 1)
        self._session.close_phase(
            publication.version,
            Checkpoint(server_round, record_to_arrays(arrays), capture(self.strategy)),
        )

    def _published(self, model: ArrayRecord) -> ServerSession:
        """Return the session, at the model that is to be sent."""
        if self._session is None:
            head = self._ledger.head()
            number = 0 if head is None else head.version[0]
            publication = self._publish(model, number)
            self._session = ServerSession(
                self._ledger,
                now=time.time_ns(),
                new_id=lambda: secrets.randbits(64) or 1,
                initial=publication.version,
            )
        current = self._publication
        if current is None or current.model is not model:
            current = self._publish(model, self._session.head.version[0])
        if current.version != self._session.head.version:
            # The caller replaced the model: a version of its own.
            current = self._publish(model, self._session.head.version[0] + 1)
            self._session.open_phase([])
            self._session.close_phase(current.version)
        return self._session

    def _publish(self, model: ArrayRecord, number: int) -> Publication:
        arrays = record_to_arrays(model)
        self._layout = self._layout or Layout.of(arrays)
        frame, _ = self.download.encode(cast_like(self._layout, arrays))
        decoded, _ = self.download.decode(frame)
        version = (number, model_digest(decoded))
        self._publication = Publication(model, frame_to_record(frame), version)
        return self._publication


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
