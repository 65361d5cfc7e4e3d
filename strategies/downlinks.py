"""Ways down by their names in a configuration."""

from __future__ import annotations

from flwr_caesar.codec import get_codec

from .downlink import Downlink
from .lattice_downlink import LatticeDownlink
from .whole_downlink import WholeDownlink

DOWNLINKS = ("whole", "lattice")


def get_downlink(name: str) -> Downlink:
    """Return a new downlink.

    Parameters
    ----------
    name : {"whole", "lattice"}
        The exact model each time, or models published on a lattice, of which a device
        gets the change since the one it holds.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in DOWNLINKS:
        raise ValueError(f"downlink must be one of {', '.join(DOWNLINKS)}, not {name}")
    return LatticeDownlink() if name == "lattice" else WholeDownlink(get_codec("dense"))
