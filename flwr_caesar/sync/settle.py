"""What becomes of uploads whose fate a request tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

import numpy as np

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Array, Arrays
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.codec.contract.update import length
from flwr_caesar.frozen import frozen

from .mapped import ReadInTurn, let_go
from .protocol import DownloadHeader, device_id
from .reported import after_settling
from .state import MAX_APPLIED, MODEL_PAYLOAD, DeviceState, Pending


@frozen
class Settled:
    """A state after its uploads were judged; see `flwr_caesar.sync.device.Received`."""

    state: DeviceState
    applied: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    forfeited: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def settle(
    state: DeviceState, header: DownloadHeader, new_token: Callable[[], bytes]
) -> Settled:
    """Judge the uploads that wait, by what the server says it applied.

    An upload that the server names stands. One that it does not name goes back into
    the residual: the phase it was made for is over, so it will not be applied any
    more. A server that means another device says nothing about this one. One that
    applied an upload this state never made is served by another copy of the state,
    which has the residual too: this one gives it up and becomes a new device.

    Where the server remembers nothing of the device's uploads, what the codec
    remembers here is dropped. A residual with a training that is longer than the server
    believes is given up; see `believed`.
    """
    if header.device != device_id(state.token):
        return Settled(state)
    made = {*state.settled, *(p.upload_id for p in state.pending)}
    if header.applied and header.applied[-1] not in made:
        return _forfeit(state, header.applied, new_token)
    notes = []
    if state.settled and header.applied[-1:] != state.settled[-1:]:
        newer = {p.upload_id for p in state.pending}
        if not newer.intersection(header.applied):
            notes.append("the server went back to an earlier state of the training")
    forgotten = header.memory == NO_DIGEST
    memory = state.codec_version, state.codec_arrays
    residual: Mapping[str, Array] = state.residual
    applied: list[int] = []
    returned: list[int] = []
    # The newest upload was encoded of all that was left at the time.
    believed = state.pending and state.pending[-1].upload_id in header.applied
    longest = 0.0 if believed else state.longest
    for pending in state.pending:
        stands = pending.upload_id in header.applied
        (applied if stands else returned).append(pending.upload_id)
        if stands and forgotten:
            continue
        try:
            values, after = _decode(state, pending)
        except CodecError as err:
            notes.append(f"an upload kept here cannot be read any more: {err}")
            continue
        if stands:
            memory = after.version, after.arrays
        elif pending.payload != MODEL_PAYLOAD:
            residual = add_floats(residual, values)
            if pending.share:
                longest = max(longest, pending.share * length(values))
    if returned:
        notes.append(f"{len(returned)} uploads were not applied")
    forfeited: Mapping[str, Array] = {}
    if 0 < header.longest < longest:
        notes.append(
            f"one training made an update of the length {longest:.3g}, and the server "
            f"believes {header.longest:.3g} at the most: what was not sent yet is "
            "given up with it"
        )
        forfeited, residual, longest = residual, {}, 0.0
    codec_version, codec_arrays = (0, {}) if forgotten else memory
    if codec_arrays is not state.codec_arrays:
        let_go(state.codec_arrays.values())  # a caller may still have the old state
    told = tuple(applied), tuple(returned)
    reported, reported_by = after_settling(state, *told)
    judged = replace(
        state,
        residual=residual,
        pending=(),
        settled=(*state.settled, *applied)[-MAX_APPLIED:],
        codec_version=codec_version,
        codec_arrays=codec_arrays,
        reported=reported,
        reported_by=reported_by,
        longest=longest,
    )
    return Settled(judged, *told, forfeited=forfeited, notes=tuple(notes))


def add_floats(left: Mapping[str, Array], right: Arrays) -> dict[str, Array]:
    """Return the sum by name, of the floating-point tensors of `right`."""
    total = dict(left)
    for name, array in right.items():
        if array.dtype.name in FLOAT_DTYPES:
            total[name] = np.asarray(array + left[name]) if name in left else array
    return total


def _decode(
    state: DeviceState, pending: Pending
) -> tuple[Mapping[str, Array], CodecState]:
    layout = Layout.of(state.model)
    if pending.payload != MODEL_PAYLOAD:
        layout = update_layout(layout)
    memory = CodecState(layout, state.codec_version, ReadInTurn(state.codec_arrays))
    codec = get_codec(inspect_frame(pending.frame).config)
    return codec.decode(pending.frame, memory, raised=False, shared=True)


def _forfeit(
    state: DeviceState, applied: tuple[int, ...], new_token: Callable[[], bytes]
) -> Settled:
    given_up: Mapping[str, Array] = state.residual
    standing = []
    for pending in state.pending:
        if pending.upload_id in applied:
            standing.append(pending.upload_id)
            continue
        if pending.payload == MODEL_PAYLOAD:
            continue
        try:
            given_up = add_floats(given_up, _decode(state, pending)[0])
        except CodecError:
            continue
    note = (
        "another copy of this device's folder, or a later state of it, has sent "
        "updates: what was not sent from here is given up, and this is a new device "
        "from now on"
    )
    fresh = replace(
        state,
        token=new_token(),
        residual={},
        pending=(),
        settled=(),
        codec_version=0,
        codec_arrays={},
        extras={},
        reported="",
        reported_by=0,
        longest=0.0,
    )
    return Settled(fresh, tuple(standing), forfeited=given_up, notes=(note,))
