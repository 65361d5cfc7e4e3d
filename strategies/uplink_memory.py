"""What upload codecs remember of each device, on the server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import WARNING

import numpy as np

from flwr_caesar.codec import CodecError, CodecState, Layout
from flwr_caesar.codec.contract.deferred import nbytes_of
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.flower import log
from flwr_caesar.results.amounts import amount
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.strategy_state import StrategyState

CHECKPOINT_BYTES = 64 << 20
"""Most bytes of a checkpoint; a device left out sends one update without prediction."""

_LAYOUT = "layout"
_ARRAYS = "arrays/"


class _Kept(dict[str, Array]):
    """Arrays of a state, of which each can go once that after it is made of it.

    Attributes
    ----------
    go_when_read : bool
        Whether nobody will read one twice any more.
    """

    go_when_read = False

    def __getitem__(self, name: str) -> Array:
        array = super().__getitem__(name)
        if self.go_when_read:
            del self[name]
        return array


class UplinkMemory:
    """Codec states by device, within a cap; beyond it the longest unused are forgotten.

    A device learns by the digest in its next download which state the server holds;
    if that is not its own, it encodes without one. So a state that the server has named
    in an open phase is kept until that device's reply is opened, or the phase ends.

    Parameters
    ----------
    max_bytes : int
        Of all states together, those of the open phase's uploads included; 0 remembers
        nothing. While replies are opened, their own states come on top.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"upload_memory must be at least 0, not {max_bytes}")
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, CodecState] = OrderedDict()
        self._staged: dict[int, CodecState] = {}
        self._awaited: set[str] = set()
        self._nbytes = 0
        self._lost = 0
        self._largest = 0

    def notes(self) -> Sequence[str]:
        """Return what the limit cost, in whole sentences; nothing if it was not met."""
        if not self._lost:
            return ()
        return (
            f"{self._lost} times the server forgot what a device's next upload builds "
            "on, and that was longer: it takes "
            f"{amount(self._largest)} a device, and there are "
            f"{amount(self._max_bytes)} for all (upload_memory).",
        )

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

    def told(self, header: DownloadHeader, *, use: bool) -> DownloadHeader:
        """Return a header that names what is remembered of its device.

        Parameters
        ----------
        header : DownloadHeader
            Of a request.
        use : bool
            Whether to use it; if not, it is forgotten.
        """
        if use:
            return replace(header, memory=self.digest(header.device))
        self.forget(header.device)
        return replace(header, memory=NO_DIGEST)

    def get(self, device: str, fresh: CodecState) -> CodecState:
        """Return the state to open a device's reply with.

        That is `fresh` if there is none of its layout.
        """
        state = self._states.get(device)
        if state is None or state.layout.digest != fresh.layout.digest:
            return fresh
        return state

    def opened(self, device: str) -> None:
        """Learn that a device's reply was opened: it is waited for no more."""
        self._awaited.discard(device)
        if device in self._states:
            self._states.move_to_end(device)

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
            before = self._states.get(device)
            if before is not None and isinstance(before.arrays, _Kept):
                before.arrays.go_when_read = True
            self.forget(device)
            state = self._staged.pop(node_id, None)
            if state is not None:
                self._states[device] = replace(state, arrays=_Kept(state.arrays))
        self.forget_phase()

    def forget(self, device: str) -> None:
        """Forget the state of a device, staged ones excepted."""
        self._awaited.discard(device)
        state = self._states.pop(device, None)
        if state is not None:
            self._nbytes -= _nbytes(state)

    def to_state(self, max_bytes: int = CHECKPOINT_BYTES) -> dict[str, StrategyState]:
        """Return the states of the devices heard last, by device, for a checkpoint.

        Parameters
        ----------
        max_bytes : int
            Of all together.
        """
        kept: dict[str, StrategyState] = {}
        for device, state in reversed(self._states.items()):
            max_bytes -= _nbytes(state)
            if max_bytes < 0:
                break
            layout = np.frombuffer(state.layout.to_bytes(), np.uint8)
            arrays = {_ARRAYS + name: array for name, array in state.arrays.items()}
            kept[device] = StrategyState(
                {"version": state.version, "digest": state.digest.hex()},
                {_LAYOUT: layout, **arrays},
            )
        return dict(reversed(kept.items()))

    def from_state(self, states: Mapping[str, StrategyState]) -> None:
        """Remember what `to_state` returned; what is damaged is left out, and said."""
        for device, kept in states.items():
            arrays = dict(kept.arrays)
            try:
                layout = Layout.from_bytes(arrays.pop(_LAYOUT).tobytes())
                shared = {
                    name.removeprefix(_ARRAYS): array for name, array in arrays.items()
                }
                state = CodecState(layout, int(kept.tree["version"]), _Kept(shared))
                if state.digest.hex() != kept.tree["digest"]:
                    raise ValueError("it has another digest")
            except (CodecError, KeyError, TypeError, ValueError) as err:
                log(WARNING, "Forgot what uploads of %s build on: %r", device, err)
                continue
            self.forget(device)
            if self._make_room(_nbytes(state)):
                self._states[device] = state
                self._nbytes += _nbytes(state)

    def _make_room(self, size: int) -> bool:
        self._largest = max(self._largest, size)
        for device in list(self._states) if size <= self._max_bytes else ():
            if self._nbytes + size <= self._max_bytes:
                break
            if device not in self._awaited:
                self.forget(device)
                self._lose()
        if self._nbytes + size <= self._max_bytes:
            return True
        self._lose()
        return False

    def _lose(self) -> None:
        self._lost += 1
        if self._lost == 1:
            log(WARNING, "%s", *self.notes())


def _nbytes(state: CodecState) -> int:
    return nbytes_of(state.arrays)
