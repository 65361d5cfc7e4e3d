"""Whether the server knows what this device has said of itself."""

from __future__ import annotations

from dataclasses import replace

from .protocol import DownloadHeader, device_id
from .state import DeviceState


def must_report(state: DeviceState, header: DownloadHeader, text: str) -> bool:
    """Whether a reply has to say a text, as nothing shows that the server has it.

    Parameters
    ----------
    state : DeviceState
        Settled by the request.
    header : DownloadHeader
        Of the request.
    text : str
        What the device has to say.
    """
    is_known = header.device == device_id(state.token)
    return not is_known or state.reported != text or state.reported_by != 0


def reported(state: DeviceState, text: str, upload_id: int) -> DeviceState:
    """Return a state after an upload whose reply says a text.

    The server has it once that upload is applied, which `settle` notes.
    """
    return replace(state, reported=text, reported_by=upload_id)


def after_settling(
    state: DeviceState, applied: tuple[int, ...], returned: tuple[int, ...]
) -> tuple[str, int]:
    """Return `reported` and `reported_by` of a state whose uploads were judged."""
    if state.reported_by in applied:
        return state.reported, 0
    if state.reported_by in returned:
        return "", 0
    return state.reported, state.reported_by
