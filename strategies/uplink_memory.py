"""What upload codecs remember of each device, on the server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from flwr_caesar.codec import CodecState
from flwr_caesar.codec.state import NO_DIGEST


class UplinkMemory:
    """Codec states by device, within a cap; beyond it the longest unused are forgotten.

    A device learns by the digest in its next download which state the server holds;
    if that is not its own, it encodes without one. So a state that the server has named
    in an open phase is kept until that device's reply is opened, or the phase ends.

    Parameters
    ----------
    max_bytes : int
        Of all states together, those of the open phase's uploads included; 0 remembers
        nothing. While a reply is opened, its own state comes on top.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"upload_memory must be at least 0, not {max_bytes}")
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, CodecState] = OrderedDict()
        self._staged: dict[int, CodecState] = {}
        self._awaited: set[str] = set()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays remembered."""
        return self._nbytes

    def __len__(self) -> int:
        """Return the number of devices remembered before the open phase."""
        return len(self._states)

    def digest(self, device: str) -> bytes:
        """Return the digest of a device's state to tell it; zeros if there is none."""
        state = self._states.get(device)
        if state is None:
            return NO_DIGEST
        self._awaited.add(device)
        return state.digest

    def get(self, device: str, fresh: CodecState) -> CodecState:
        """Return the state to open a device's reply with.

        That is `fresh` if there is none of its layout.
        """
        self._awaited.discard(device)
        state = self._states.get(device)
        if state is None or state.layout.digest != fresh.layout.digest:
            return fresh
        self._states.move_to_end(device)
        return state

    def stage(self, node_id: int, state: CodecState) -> None:
        """Hold the state after an upload until it is known to be applied.

        It is not held if there is no room beside the states that are still needed.
        """
        self.drop(node_id)
        size = _nbytes(state)
        if size and self._make_room(size):
            self._staged[node_id] = state
            self._nbytes += size

    def drop(self, node_id: int) -> None:
        """Forget what was staged for an upload that is not used."""
        state = self._staged.pop(node_id, None)
        if state is not None:
            self._nbytes -= _nbytes(state)

    def forget_phase(self) -> None:
        """Forget everything staged."""
        for node_id in list(self._staged):
            self.drop(node_id)
        self._awaited = set()

    def commit(self, applied: Mapping[int, str]) -> None:
        """Keep what was staged, of the nodes whose devices' uploads are applied.

        The state before an applied upload is of no use any more, staged or not.
        """
        for node_id, device in applied.items():
            self._forget(device)
            state = self._staged.pop(node_id, None)
            if state is not None:
                self._states[device] = state
        self.forget_phase()

    def _make_room(self, size: int) -> bool:
        if size > self._max_bytes:
            return False
        for device in list(self._states):
            if self._nbytes + size <= self._max_bytes:
                break
            if device not in self._awaited:
                self._forget(device)
        return self._nbytes + size <= self._max_bytes

    def _forget(self, device: str) -> None:
        state = self._states.pop(device, None)
        if state is not None:
            self._nbytes -= _nbytes(state)


def _nbytes(state: CodecState) -> int:
    return sum(array.nbytes for array in state.arrays.values())
