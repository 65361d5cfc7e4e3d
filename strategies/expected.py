"""What a run takes of memory and of the wire, told before its first round."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Layout
from flwr_caesar.results.amounts import amount

from . import machine_memory
from .inner import aggregates_a_mean
from .method import ServerMethod

SERVER_MODELS, REMEMBERING_SERVER_MODELS = 8, 10
"""Models that the server holds at most; the latter where uploads of one device are
predicted from earlier ones. See docs/benchmarks/large-models.md."""
DEVICE_MODELS, REMEMBERING_MODELS = 6, 7
"""Models that a device holds at most; the latter where its uploads are predicted from
earlier ones. See docs/benchmarks/device-memory.md."""
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


def expectation(layout: Layout, method: ServerMethod, inner: Strategy) -> str:
    """Return what a run is expected to take, in a sentence.

    Parameters
    ----------
    layout : Layout
        Tensors of the model.
    method : ServerMethod
        What travels.
    inner : Strategy
        The inner strategy.
    """
    nbytes, remembers = server_nbytes(layout), method.upload_memory > 0
    models = REMEMBERING_MODELS if remembers else DEVICE_MODELS
    here = REMEMBERING_SERVER_MODELS if remembers else SERVER_MODELS
    one_by_one = aggregates_a_mean(inner)
    more = "" if one_by_one else ", and one more for each reply of a round"
    return (
        f"Expected: up to {here} models of {amount(nbytes)} in memory here, "
        f"{amount(here * nbytes)} of {amount(machine_memory.memory_bytes())}"
        f"{more}; up to {models}, {amount(models * layout.nbytes)}, on a device whose "
        f"app holds two; {amount(method.downlink.first_bytes(layout))} down to a new "
        "device"
    )


def server_nbytes(layout: Layout) -> int:
    """Return the bytes of a model on the server, which computes in float32 at least."""
    return sum(
        spec.size * (max(spec.itemsize, 4) if spec.is_float else spec.itemsize)
        for spec in layout.tensors
    )
