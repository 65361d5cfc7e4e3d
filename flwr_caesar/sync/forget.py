"""A residual that is given up: too old, or not to be added to what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flwr_caesar.codec.contract.layout import Array

from .protocol import DownloadHeader
from .settle import settle
from .state import DeviceState


def forget_old(
    state: DeviceState, header: DownloadHeader, max_age: int
) -> tuple[DeviceState, Mapping[str, Array]]:
    """`forget` the residual if it is too old; off by default.

    Parameters
    ----------
    state : DeviceState
        As it was saved.
    header : DownloadHeader
        The request; call this before `receive`.
    max_age : int
        Most phases since the state's last request; 0 keeps a residual for ever.

    Returns
    -------
    tuple of DeviceState and mapping of str to ndarray
        The state, and what was given up.
    """
    age = header.order[1] - state.order[1]
    if max_age <= 0 or age <= max_age or header.order < state.order:
        return state, {}
    return forget(state, header)


def forget(
    state: DeviceState, header: DownloadHeader
) -> tuple[DeviceState, Mapping[str, Array]]:
    """Give up the residual, and the uploads that would return to it.

    Parameters
    ----------
    state : DeviceState
        As it was saved.
    header : DownloadHeader
        The request; call this before `receive`.

    Returns
    -------
    tuple of DeviceState and mapping of str to ndarray
        The state, and what was given up.
    """
    if header.order <= state.order:
        return state, {}
    judged = settle(state, header, lambda: state.token)
    given_up = judged.state.residual
    if judged.forfeited or not given_up:
        return state, {}
    kept = tuple(p for p in state.pending if p.upload_id not in judged.returned)
    return replace(state, residual={}, pending=kept, longest=0.0), given_up
