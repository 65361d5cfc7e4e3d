"""The device's side of a request: who applied what, and what to send.

Pure: a state goes in and comes out. The caller loads it before and saves it durably
before anything that depends on it leaves the device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import field, replace

from flwr_caesar.codec import (
    Codec,
    CodecError,
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.contract.digest import digest_of
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.codec.contract.raised import mark_raised
from flwr_caesar.codec.contract.update import length
from flwr_caesar.frozen import frozen

from .believed import part_to_send, share_of
from .mapped import ReadInTurn
from .part import changed_part, completed
from .protocol import (
    DECLINED,
    EVALUATED,
    MAX_PENDING,
    NEED_WHOLE,
    STALE,
    TELLS_HELD,
    UNSETTLED,
    UPDATE,
    DownloadHeader,
    UploadHeader,
    device_id,
)
from .residual import add_residual, left_over
from .settle import settle
from .short import ShortResidual
from .state import MODEL_PAYLOAD, UPDATE_PAYLOAD, DeviceState, Pending, Version

DecodeModel = Callable[[bytes, Arrays | None], Mapping[str, Array]]
"""From a frame, and the base if it is a change of one, to the model."""


@frozen
class Received:
    """What a request asks of the device.

    Parameters
    ----------
    state : DeviceState
        To go on with. To be saved before `reply` is sent; if there is none yet,
        `commit_update` or `evaluated` say what to save and send.
    model : mapping of str to ndarray, optional
        The model to work on; `None` if there is nothing to compute.
    reply, frame : UploadHeader, bytes, optional
        What to answer at once, and the upload that goes with it if it is one that
        was sent before.
    applied, returned : tuple of int
        Uploads of which this request told that they were applied, or were not and
        went back into the residual.
    forfeited : mapping of str to ndarray
        What was given up, as another copy of this state went on without it, or as one
        training in it is longer than the server believes.
    notes : tuple of str
        For the device's log.
    """

    state: DeviceState
    model: Mapping[str, Array] | None = None
    reply: UploadHeader | None = None
    frame: bytes | None = None
    applied: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    forfeited: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@frozen
class Committed:
    """A state to save durably, and then the upload to send.

    Parameters
    ----------
    state : DeviceState
        To save.
    frame, reply : bytes, UploadHeader
        To send after it is saved.
    total : mapping of str to ndarray
        What was encoded: the update and what was left of earlier ones, or the model;
        empty if it was overwritten.
    sent : mapping of str to ndarray
        What the server decodes from `frame`; empty if nobody asked for it.
    """

    state: DeviceState
    frame: bytes
    reply: UploadHeader
    total: Arrays
    sent: Mapping[str, Array] = field(default_factory=dict)


def decode_whole(frame: bytes, base: Arrays | None) -> Mapping[str, Array]:
    """Decode a frame that holds a whole model, or the tensors that `base` lacks.

    Raises
    ------
    CodecError
        If it is damaged, or has a tensor that `base` has not.
    """
    found, _ = get_codec(inspect_frame(frame).config).decode(frame, finite=False)
    return found if base is None else completed(found, base)


def receive(
    state: DeviceState | None,
    header: DownloadHeader,
    frame: bytes | None,
    *,
    train: bool,
    new_token: Callable[[], bytes],
    decode_model: DecodeModel = decode_whole,
    exact: bool = True,
) -> Received:
    """Take a request in.

    Parameters
    ----------
    state : DeviceState, optional
        What was saved for the header's lineage.
    header : DownloadHeader
        The request.
    frame : bytes, optional
        The model, or a change of one; `None` if the device is believed to hold it.
    train : bool
        Whether an update is asked for.
    new_token : callable
        Returns 16 new random bytes.
    decode_model : callable
        Decodes `frame`; may raise CodecError.
    exact : bool
        Whether the model must be, to the bit, the one that the header names. False
        where each device recovers an approximation of its own.

    Raises
    ------
    ValueError
        If the state is of another lineage.
    """
    if state is None:
        state = DeviceState(new_token(), header.lineage)
    if state.lineage != header.lineage:
        raise ValueError("the state is of another lineage than the request")
    if header.order < state.order:
        note = f"request {header.order} is older than {state.order}, answered before"
        return Received(state, reply=_reply(state, header, STALE), notes=(note,))
    if header.order == state.order:
        for pending in state.pending:
            if pending.order == header.order:
                return _again(state, header, pending)
    settled = settle(state, header, new_token)
    state = replace(settled.state, order=header.order)
    received = Received(
        state,
        applied=settled.applied,
        returned=settled.returned,
        forfeited=settled.forfeited,
        notes=settled.notes,
    )
    try:
        model = _open_model(state, header, frame, decode_model, exact=exact)
    except CodecError as err:
        note = f"a whole model is needed: {err}"
        return replace(
            received,
            reply=_reply(state, header, NEED_WHOLE),
            notes=(*received.notes, note),
        )
    number, digest = header.target
    state = replace(state, model=model, version=number, digest=digest)
    if train and len(state.pending) >= MAX_PENDING:
        note = "too many uploads wait for the server to know this device again"
        return replace(
            received,
            state=state,
            reply=_reply(state, header, UNSETTLED),
            notes=(*received.notes, note),
        )
    return replace(received, state=state, model=model)


def is_answered(state: DeviceState | None, header: DownloadHeader) -> bool:
    """Whether a request needs no work, as it came before or is older than another."""
    if state is None or header.order != state.order:
        return state is not None and header.order < state.order
    return any(pending.order == header.order for pending in state.pending)


def decline(
    state: DeviceState | None,
    header: DownloadHeader,
    new_token: Callable[[], bytes],
) -> Received:
    """Answer a request by not doing what it asks for; nothing else changes.

    Uploads in doubt stay so until the next request, and the model of this one is not
    taken in, as a device that is too hot is to do as little as it can.

    Parameters
    ----------
    state, header, new_token
        See `receive`.
    """
    if state is None:
        state = DeviceState(new_token(), header.lineage)
    return Received(state, reply=_reply(state, header, DECLINED))


def commit_update(
    state: DeviceState,
    header: DownloadHeader,
    update: Arrays,
    *,
    codec: Codec,
    new_id: Callable[[], int],
    error_feedback: bool = True,
    payload: str = UPDATE_PAYLOAD,
    want_sent: bool = False,
    overwrite: bool = False,
    nonnegative: Collection[str] = (),
) -> Committed:
    """Encode an update together with the residual, or a whole model without one.

    Parameters
    ----------
    state : DeviceState
        Of `Received`.
    header : DownloadHeader
        The request.
    update : mapping of str to ndarray
        What `flwr_caesar.codec.difference` gives for the trained model; the trained
        model itself for a payload of `MODEL_PAYLOAD`.
    codec : Codec
        For the update.
    new_id : callable
        Returns a new random nonzero number below ``2**64``.
    error_feedback : bool
        Whether to keep what the codec leaves out. Without, it is dropped by choice;
        uploads that were not applied are sent again all the same. Of no effect on a
        whole model, whose residual has no meaning.
    payload : {"update", "model"}
        What `update` is.
    want_sent : bool
        Whether to return what the server decodes.
    overwrite : bool
        Whether `update` is the caller's own and not needed any more: then its arrays
        become the residual, which saves two copies of the model, unless what is sent is
        asked for.
    nonnegative : collection of str
        Tensors that have no negative element in the trained model, such as variances:
        the server then has none either. That is its doing: what counts as sent, and
        returns if the upload is not applied, is what the codec made of the update.

    Raises
    ------
    CodecError
        If the update cannot be encoded; then nothing changed.
    """
    is_model = payload == MODEL_PAYLOAD
    # The server expects the tensors of its model; others need a table in the frame.
    expected = Layout.of(state.model)
    total: Arrays = update
    residual: Mapping[str, Array] = state.residual
    share = 0.0
    if not is_model:
        expected = update_layout(expected)
        layout = update_layout(Layout.of(update))
        own = length(update) if state.residual else 0.0
        total = add_residual(update, state.residual, layout, overwrite=overwrite)
        share = share_of(own, total) if state.residual else 1.0
        residual = {}
    memory: CodecState | None = CodecState(expected)
    if not state.pending and state.codec_arrays:
        last = CodecState(expected, state.codec_version, ReadInTurn(state.codec_arrays))
        memory = last if last.digest == header.memory else memory
    part = changed_part(update, state.model) if is_model else None
    if part is not None:
        total, memory = part, None
    sent: Mapping[str, Array] = {}
    longest = 0.0 if is_model else header.longest
    all_sent = want_sent or longest or (error_feedback and not is_model)
    if all_sent or nonnegative:
        # The codec's memory after it is that of the upload, if that is applied.
        only = None if all_sent else nonnegative
        raw, sent = codec.encode_decoded(total, memory, only=only)[:2]
    else:
        raw = codec.encode(total, memory)[0]
    shorter = part_to_send(total, sent, share=share, longest=longest)
    if shorter is not None:
        raw, sent = codec.encode_decoded(shorter, memory)[:2]
        if not error_feedback:
            left = left_over(total, shorter, layout, overwrite=False)
            residual, total = ShortResidual.of(left), shorter
    if part is not None:
        total, sent = update, completed(sent, state.model) if want_sent else sent
    if sent and nonnegative:
        raw, _ = mark_raised(raw, layout, sent, state.model, nonnegative)
    frame = stamp(raw, lineage=state.lineage, base_version=state.version)
    overwrite = overwrite and not want_sent
    if error_feedback and not is_model:
        left = left_over(total, sent, layout, overwrite=overwrite)
        residual = ShortResidual.of(left)
        if overwrite:
            total, sent = {}, {}
    upload_id = new_id()
    reply = replace(_reply(state, header, UPDATE), upload_id=upload_id)
    pending = Pending(upload_id, header.order, frame, payload, share=share)
    after = replace(state, residual=residual, pending=(*state.pending, pending))
    return Committed(after, frame, reply, total, sent)


def evaluated(state: DeviceState, header: DownloadHeader) -> UploadHeader:
    """Return the reply to an evaluation."""
    return _reply(state, header, EVALUATED)


def _again(state: DeviceState, header: DownloadHeader, pending: Pending) -> Received:
    """Answer a request that was answered before: the same upload once more."""
    if header.target != _held(state):
        note = f"request {header.order} came twice with different models"
        return Received(state, reply=_reply(state, header, STALE), notes=(note,))
    reply = _reply(state, header, UPDATE)
    if reply.known is not None:
        known = tuple(i for i in reply.known if i != pending.upload_id)
        reply = replace(reply, known=known)
    reply = replace(reply, upload_id=pending.upload_id)
    return Received(state, reply=reply, frame=pending.frame)


def _open_model(
    state: DeviceState,
    header: DownloadHeader,
    frame: bytes | None,
    decode_model: DecodeModel,
    *,
    exact: bool,
) -> Mapping[str, Array]:
    held = _held(state)
    fits = header.base in (None, held)
    # A server that missed our last reply builds on an older model than ours. What ours
    # has in common with both may do, and the digest tells whether it did.
    if not fits and (held is None or frame is None or not exact):
        raise CodecError(f"the download builds on {header.base}, not held here")
    if frame is None:
        if header.base != header.target:
            raise CodecError("the download has no model")
        return state.model
    model = decode_model(frame, None if header.base is None else state.model)
    if exact and digest_of(model) != header.target[1]:
        raise CodecError(
            "the model received is not the one that was meant"
            if fits
            else f"the download builds on {header.base}, not held here"
        )
    return model


def _held(state: DeviceState) -> Version | None:
    return None if state.version < 0 else (state.version, state.digest)


def _reply(state: DeviceState, header: DownloadHeader, status: str) -> UploadHeader:
    known: tuple[int, ...] | None = None
    if status == UPDATE and header.device != device_id(state.token):
        known = (*state.settled, *(p.upload_id for p in state.pending))
    return UploadHeader(
        header.nonce,
        state.token,
        status,
        held=_held(state) if status in TELLS_HELD else None,
        known=known,
    )
