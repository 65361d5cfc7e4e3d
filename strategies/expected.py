"""What a run takes of memory and of the wire, told before its first round."""

from __future__ import annotations

from flwr_caesar.codec import Layout
from flwr_caesar.results.amounts import amount

from . import machine_memory

SERVER_MODELS = 8
"""Models that the server holds at most; see docs/benchmarks/large-models.md."""
DEVICE_MODELS = 6
"""Models that a device holds at most beside its training; likewise."""
_FEWEST = 5  # that no run does with less


def require_memory(layout: Layout) -> None:
    """Refuse a model for which the server has too little memory, before any work.

    Raises
    ------
    MemoryError
        With what it takes, what there is, and what to do.
    """
    nbytes, there = server_nbytes(layout), machine_memory.memory_bytes()
    if _FEWEST * nbytes > there:
        raise MemoryError(
            f"a model of {amount(nbytes)} takes about {SERVER_MODELS} times its size "
            f"of the server's memory, {amount(SERVER_MODELS * nbytes)}, and this "
            f"process may use {amount(there)}: run the ServerApp on a larger machine, "
            "or train fewer tensors, such as adapters"
        )


def expectation(layout: Layout, first_download: float, *, keeps_updates: bool) -> str:
    """Return what a run is expected to take, in a sentence.

    Parameters
    ----------
    layout : Layout
        Tensors of the model.
    first_download : float
        Bytes that a device that holds nothing is sent.
    keeps_updates : bool
        Whether the inner strategy is given every update of a round.
    """
    nbytes = server_nbytes(layout)
    more = ", and one more for each reply of a round" if keeps_updates else ""
    return (
        f"Expected: up to {SERVER_MODELS} models of {amount(nbytes)} in memory here, "
        f"{amount(SERVER_MODELS * nbytes)} of {amount(machine_memory.memory_bytes())}"
        f"{more}; up to {DEVICE_MODELS}, {amount(DEVICE_MODELS * layout.nbytes)}, on a "
        f"device beside its training; {amount(first_download)} down to a new device"
    )


def server_nbytes(layout: Layout) -> int:
    """Return the bytes of a model on the server, which computes in float32 at least."""
    return sum(
        spec.size * (max(spec.itemsize, 4) if spec.is_float else spec.itemsize)
        for spec in layout.tensors
    )
