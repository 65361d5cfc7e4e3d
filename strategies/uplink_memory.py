"""What upload codecs remember of each device, on the server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from flwr_caesar.codec import CodecState
from flwr_caesar.codec.state import NO_DIGEST


class UplinkMemory:
    """Codec states by device, the longest unused forgotten first beyond a cap.

    A device learns by the digest in its next download which state the server holds;
    if that is not its own, it encodes without one.

    Parameters
    ----------
    max_bytes : int
        Of all states together; 0 remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"upload_memory must be at least 0, not {max_bytes}")
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, CodecState] = OrderedDict()
        self._staged: dict[int, CodecState] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays remembered."""
        return sum(map(_nbytes, self._states.values()))

    def digest(self, device: str) -> bytes:
        """Return the digest of a device's state; zeros if there is none."""
        state = self._states.get(device)
        return NO_DIGEST if state is None else state.digest

    def get(self, device: str, fresh: CodecState) -> CodecState:
        """Return a device's state, or `fresh` if there is none of its layout."""
        state = self._states.get(device)
        if state is None or state.layout.digest != fresh.layout.digest:
            return fresh
        return state

    def stage(self, node_id: int, state: CodecState) -> None:
        """Hold the state after an upload until it is known to be applied."""
        if state.arrays and self._max_bytes:
            self._staged[node_id] = state

    def drop(self, node_id: int) -> None:
        """Forget what was staged for an upload that is not used."""
        self._staged.pop(node_id, None)

    def forget_phase(self) -> None:
        """Forget everything staged."""
        self._staged = {}

    def commit(self, applied: Mapping[int, str]) -> None:
        """Keep what was staged, of the nodes whose devices' uploads are applied."""
        for node_id, device in applied.items():
            self._states.pop(device, None)
            state = self._staged.get(node_id)
            if state is not None:
                self._states[device] = state
        self._staged = {}
        total = self.nbytes
        while total > self._max_bytes:
            _, oldest = self._states.popitem(last=False)
            total -= _nbytes(oldest)


def _nbytes(state: CodecState) -> int:
    return sum(array.nbytes for array in state.arrays.values())
