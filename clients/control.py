"""Scaffnew's control variates: how a device's drift against the others is corrected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flwr_caesar.codec.coding.blocks import blocks

Array = np.ndarray[Any, np.dtype[Any]]


def next_control(
    control: Mapping[str, Array],
    mean: Mapping[str, Array],
    sent: Mapping[str, Array],
    *,
    lr: float,
    p: float,
) -> dict[str, Array]:
    """Return a device's control variates after a communication.

    ``h + (p / lr) (mean - sent)``. Summed over the devices whose `sent` make up the
    mean, the second term is zero, so that the sum of all `h` stays what it was. That
    needs what the server decoded, not what the device compressed, and the mean itself,
    not a compressed one.

    Parameters
    ----------
    control : mapping of str to ndarray
        ``h``, the device's control variates by tensor name; one that is absent is 0.
    mean : mapping of str to ndarray
        The mean of the devices' models, weighted equally.
    sent : mapping of str to ndarray
        The model that the server decoded from this device.
    lr : float
        The device's step size.
    p : float
        Probability of a communication after a step; ``1 / p`` is the mean number of
        local steps.

    Returns
    -------
    dict of str to ndarray
        For every floating-point tensor of `sent`, in float64 if it is, else float32.

    Raises
    ------
    ValueError
        If names or shapes differ, `lr` is not above 0, or `p` not in (0, 1].

    References
    ----------
    Mishchenko et al. (2022), ProxSkip, arXiv:2202.09357. Yi et al. (2024), FedComLoc,
    arXiv:2403.09904.
    """
    if not lr > 0:
        raise ValueError(f"lr must be above 0, not {lr}")
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], not {p}")
    after = {}
    for name, own in sent.items():
        if own.dtype.kind in "biu":
            continue
        if name not in mean or mean[name].shape != own.shape:
            raise ValueError(f"tensor {name!r} is not in the mean with its shape")
        dtype = np.result_type(own.dtype, np.float32)
        before = control.get(name, np.zeros(own.shape, dtype))
        if before.shape != own.shape:
            raise ValueError(
                f"control variate {name!r} has shape {before.shape}, not {own.shape}"
            )
        flat = [array.reshape(-1) for array in (mean[name], own, before)]
        moved = np.empty(own.size, dtype)
        for part in blocks(own.size):
            a, b, h = (array[part] for array in flat)
            gap = np.subtract(a, b, dtype=np.float64)
            gap *= p / lr
            gap += h
            moved[part] = gap
        after[name] = moved.reshape(own.shape)
    return after
