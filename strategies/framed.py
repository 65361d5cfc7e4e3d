"""A strategy whose arrays travel as frames."""

from __future__ import annotations

from collections.abc import Callable
from logging import INFO

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from flwr_caesar.codec import Codec, CodecState, Layout, get_codec, update_layout
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.records import RoundRecord
from flwr_caesar.transport import RECORD_KEY, Plan, frame_to_record, record_to_frame

from .wrapper import StrategyWrapper


class FramedStrategy(StrategyWrapper):
    """Frames both ways: the model down by one codec, updates up by another.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    download : Codec
        Codec of the model.
    upload : Codec
        Codec of the updates.
    error_feedback : bool
        Whether devices keep what the upload codec left out.
    on_record : callable, optional
        Called with the RoundRecord of each train and evaluate phase.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        download: Codec | None = None,
        upload: Codec | None = None,
        error_feedback: bool = False,
        on_record: Callable[[RoundRecord], None] | None = None,
    ) -> None:
        super().__init__(strategy, on_record=on_record)
        self.download = download or get_codec("dense")
        self.upload = upload or get_codec("dense")
        self.error_feedback = error_feedback
        self._frames: dict[int, tuple[ArrayRecord, ArrayRecord]] = {}

    def summary(self) -> None:
        """Log the codecs and the settings of the inner strategy."""
        log(INFO, "\t├──> Download: %s", self.download.config)
        feedback = " with error feedback" if self.error_feedback else ""
        log(INFO, "\t├──> Upload: %s%s", self.upload.config, feedback)
        super().summary()

    def _pack(self, content: RecordDict, *, is_train: bool) -> RecordDict:
        plan = Plan(
            upload=self.upload.config if is_train else None,
            error_feedback=self.error_feedback and is_train,
        )
        packed = RecordDict(dict(content.items()))
        for key, record in content.array_records.items():
            packed[key] = self._frame(record)
        packed[RECORD_KEY] = plan.to_record()
        return packed

    def _frame(self, record: ArrayRecord) -> ArrayRecord:
        """Return the frame of a model, encoded once while it is being sent."""
        if id(record) not in self._frames:
            frame, _ = self.download.encode(self._numpy(record))
            self._frames[id(record)] = record, frame_to_record(frame)
        return self._frames[id(record)][1]

    def _begin_phase(self) -> None:
        super()._begin_phase()
        self._frames = {}

    def _open_record(self, record: ArrayRecord, base: Arrays) -> dict[str, Array]:
        expected = CodecState(update_layout(Layout.of(base)))
        update, _ = self.upload.decode(record_to_frame(record), expected)
        return update
