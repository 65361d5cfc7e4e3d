"""An upload codec's memory that all devices share."""

from __future__ import annotations

from collections.abc import Mapping

from flwr_caesar.codec import CodecState, Layout
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.codec.contract.state import NO_DIGEST

from .uplink_memory import UplinkMemory


class SharedMemory(UplinkMemory):
    """One codec state for the uploads of a phase, whichever device they are of.

    What single uploads leave behind is not kept.

    Attributes
    ----------
    state : CodecState, optional
        From which the uploads of the open phase are decoded; `None`: from nothing.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.state: CodecState | None = None

    def share(self, layout: Layout, arrays: Mapping[str, Array]) -> None:
        """Take what uploads are predicted from; no arrays for nothing.

        Parameters
        ----------
        layout : Layout
            Of the updates.
        arrays : mapping of str to ndarray
            As the upload codec keeps them.
        """
        self.state = CodecState(layout, 1, arrays) if arrays else None

    def digest(self, device: str) -> bytes:
        """See `UplinkMemory.digest`."""
        return self.state.digest if self.state else NO_DIGEST

    def get(self, device: str, fresh: CodecState) -> CodecState:
        """See `UplinkMemory.get`."""
        state = self.state
        fits = state is not None and state.layout.digest == fresh.layout.digest
        return state if state is not None and fits else fresh

    def stage(self, node_id: int, state: CodecState) -> None:
        """See `UplinkMemory.stage`: nothing is held."""
