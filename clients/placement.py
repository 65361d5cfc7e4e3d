"""Where a torch app trains: on which device, how many threads, by its node config."""

from __future__ import annotations

from collections.abc import Mapping
from logging import INFO, WARNING

import torch

from flwr_caesar.flower import log

GPU_CHOICES = ("preferred", "required", "never")


class PlacementError(RuntimeError):
    """The device has not what its node config says it needs."""


def place(
    node_config: Mapping[str, bool | int | float | str], *, threads: int = 0
) -> str:
    """Return the device to train on, and set torch's threads.

    Where the node config has a ``gpu``, it is said in the log which it is, so that
    nobody trains on a CPU without knowing.

    Parameters
    ----------
    node_config : mapping
        ``gpu``: ``"required"``, ``"preferred"`` (the default) or ``"never"``;
        ``threads``: how many to use. ``flwr-caesar node`` takes both from the
        ``[policy]`` of ``node.toml``.
    threads : int
        How many where the node config does not say; 0 leaves it to torch.

    Returns
    -------
    str
        ``"cuda"`` or ``"cpu"``.

    Raises
    ------
    PlacementError
        If a GPU is required and torch cannot use one, or a value is none of these.
    """
    wanted = node_config.get("gpu", "preferred")
    if wanted not in GPU_CHOICES:
        raise PlacementError(
            f"the node config has gpu={wanted!r:.40}; write one of: "
            + ", ".join(GPU_CHOICES)
        )
    number = node_config.get("threads", threads)
    if type(number) is not int or number < 0:
        raise PlacementError(
            f"the node config has threads={number!r:.40}; write a number from 1, or 0"
        )
    if number:
        torch.set_num_threads(number)
    if wanted == "never":
        return "cpu"
    told = "gpu" in node_config
    trouble = _gpu_trouble()
    if not trouble:
        if told:
            log(INFO, "flwr-caesar: trains on %s", torch.cuda.get_device_name())
        return "cuda"
    if wanted == "required":
        raise PlacementError(
            f"the node config requires a GPU, and {trouble}: `flwr-caesar doctor` says "
            "what to do"
        )
    if told:
        log(WARNING, "flwr-caesar: trains on the CPU: %s", trouble)
    return "cpu"


def _gpu_trouble() -> str:
    """Return why torch cannot train on a GPU; empty if it can."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    try:
        # A build without code for this GPU sees it, and fails at the first kernel.
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as err:
        return f"torch cannot use the GPU ({str(err).splitlines()[0]:.120})"
    return ""
