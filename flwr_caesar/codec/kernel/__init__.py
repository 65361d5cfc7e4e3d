"""The compiled kernel, where it was built: the codec's loops in C, with the same bytes.

Numpy has each of them, too, and is used where there is no kernel. So the function that
has both asks `compiled` when it is called, and nobody else knows the difference.
"""

from __future__ import annotations

import os
from importlib import import_module

import numpy as np

from .interface import INTERFACE, Array, Kernel

SWITCH = "FLWR_CAESAR_KERNEL"
"""The variable that, set to ``off``, has numpy do everything."""

_OFF = ("0", "off", "no", "false")

native: Kernel | None = None
"""The kernel; `None` where numpy does everything."""

in_use = "the compiled kernel"
"""What runs the loops, and where that is not the kernel, why, for people."""

if os.environ.get(SWITCH, "").lower() in _OFF:
    in_use = f"numpy, as {SWITCH} is off"
else:
    try:
        _found = import_module("._native", __name__)
    except ImportError as err:
        in_use = f"numpy, as the compiled kernel cannot be loaded: {err}"
    else:
        if getattr(_found, "INTERFACE", None) == INTERFACE:
            native = _found
        else:  # an editable installation whose sources went on
            in_use = "numpy, as the kernel is of another version: install again"


def compiled() -> Kernel | None:
    """Return the kernel, or `None` where numpy is to do the work."""
    return native


def contiguous(x: Array, kind: type[np.generic] | None = None) -> Array:
    """Return an array as the kernel takes it: contiguous, aligned, of a kind if given.

    What was read from a file or a frame may be none of these.
    """
    flags = x.flags
    if flags.c_contiguous and flags.aligned and (kind is None or x.dtype == kind):
        return x
    return np.require(x, kind, ("C", "A"))
