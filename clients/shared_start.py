"""A shared start: the first model, made on the device instead of downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.digest import NamedModel, model_digest
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.codec.published.lattice_model import LatticeRules
from flwr_caesar.codec.published.publication import initial_point
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import DeviceState

_MOST_BYTES = 16 << 20
"""A larger model is not kept for other devices."""

_made: dict[tuple[bytes, str], NamedModel] = {}


def with_shared_start(
    state: DeviceState | None,
    header: DownloadHeader,
    initial: Arrays,
    start: Mapping[str, Any],
    new_token: Callable[[], bytes],
) -> DeviceState | None:
    """Return a state that holds the first model, if that is what the server builds on.

    Parameters
    ----------
    state : DeviceState, optional
        As it was saved; it holds no model.
    header : DownloadHeader
        The request.
    initial : mapping of str to ndarray
        The app's own initial arrays.
    start : mapping
        From the plan: how the server made the first model of its initial arrays.
    new_token : callable
        Returns 16 new random bytes.

    Returns
    -------
    DeviceState or None
        `state` as it is, if the first model comes out another than the server's; the
        device then says that it needs a whole one.
    """
    if header.base is None:
        return state
    try:
        model = _first_model(initial, start)
    except (CodecError, KeyError, TypeError, ValueError):
        return state
    number, digest = header.base
    if model.digest != digest:
        return state
    state = state or DeviceState(new_token(), header.lineage)
    return replace(state, model=dict(model), version=number, digest=digest)


def _first_model(initial: Arrays, start: Mapping[str, Any]) -> NamedModel:
    """Return what the server made of the initial arrays.

    Devices that share a process, as in a simulation, make it once.
    """
    wanted = model_digest(initial), json.dumps(dict(start), sort_keys=True)
    if wanted not in _made:
        rules = LatticeRules(
            start["exact_below"], start["fine_below"], start.get("halves") == 1
        )
        if "bits" in start:
            point = initial_point(initial, None, rules, int(start["bits"]))
        else:  # a run that began with one first step for all tensors
            point = initial_point(initial, int(start["exponent"]), rules)
        model = NamedModel(point.arrays(), point.digest)
        if sum(array.nbytes for array in model.values()) > _MOST_BYTES:
            return model
        for array in model.values():
            array.flags.writeable = False
        _made.clear()
        _made[wanted] = model
    return _made[wanted]
