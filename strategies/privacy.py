"""What clipping on the devices asks of compression."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    Strategy,
)

from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Array, Arrays
from flwr_caesar.sync.state import MODEL_PAYLOAD

from .nested import nested

ClipsOnDevices = (
    DifferentialPrivacyClientSideFixedClipping
    | DifferentialPrivacyClientSideAdaptiveClipping
)


def clips_on_devices(strategy: Strategy) -> ClipsOnDevices | None:
    """Return the strategy, this one or inside it, that has devices clip updates."""
    for inner in nested(strategy):
        if isinstance(inner, ClipsOnDevices):
            return inner
    return None


def require_clipped_uploads(
    strategy: Strategy, *, error_feedback: bool, payload: str
) -> None:
    """Require that what devices send is what they clipped, if they do.

    Raises
    ------
    ValueError
        If a residual would be added after clipping, or what is encoded is not the
        clipped update.
    """
    clipping = clips_on_devices(strategy)
    if clipping is None:
        return
    name = type(clipping).__name__
    if error_feedback:
        raise ValueError(
            f"error_feedback adds a residual to the update after {name} had it "
            "clipped, and the sum is longer than the clipping norm: pass "
            "error_feedback=False, or clip on the server "
            f"({name.replace('Client', 'Server')})"
        )
    if payload == MODEL_PAYLOAD:
        raise ValueError(
            f"this strategy compresses models, not the updates that {name} has "
            "clipped, and what it leaves out of a model is not bounded by the clipping "
            f"norm: clip on the server ({name.replace('Client', 'Server')})"
        )


def require_no_accountant(strategy: Strategy) -> None:
    """Require that no privacy accountant would begin anew with a resumed run.

    Raises
    ------
    ValueError
        If there is one: what it counted before is not in the checkpoint.
    """
    if any(getattr(inner, "accountant", None) for inner in nested(strategy)):
        raise ValueError(
            "a checkpoint does not hold what a privacy accountant has counted, so a "
            "resumed run would understate the privacy spent: start without the "
            "accountant, or without the checkpoint's folder"
        )


def clip(update: Arrays, norm: float) -> dict[str, Array]:
    """Scale an update down to a norm, if it is longer.

    Parameters
    ----------
    update : mapping of str to ndarray
        Tensors that are not floating point neither count nor change.
    norm : float
        Largest Euclidean norm of all tensors together.
    """
    floats = {n: a for n, a in update.items() if a.dtype.name in FLOAT_DTYPES}
    squares = (
        float(np.square(array, dtype=np.float64).sum()) for array in floats.values()
    )
    length = float(np.sqrt(sum(squares)))
    if not length > norm:
        return dict(update)
    scaled = {
        name: np.asarray(array * array.dtype.type(norm / length))
        for name, array in floats.items()
    }
    return {**update, **scaled}
