"""Torch state dicts as Flower's records, bfloat16 included."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from flwr_caesar.codec.contract.layout import to_dtype
from flwr_caesar.flower import record_of
from flwr_caesar.transport.npy import from_flower, to_flower


def state_to_record(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Return a state dict as an ArrayRecord, each tensor in its own dtype.

    What ``ArrayRecord(state)`` does, and bfloat16, which Flower refuses. Only a
    strategy of ours can aggregate those; Flower's own cannot compute with them.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        Tensors on any device.

    Examples
    --------
    >>> record = state_to_record(model.state_dict())  # doctest: +SKIP
    """
    return record_of({name: _to_array(tensor) for name, tensor in state.items()})


def record_to_state(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Return a state dict of what `state_to_record` or Flower made a record of.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU; bfloat16 where the record says so.
    """
    return {name: _to_tensor(array) for name, array in record.items()}


def _to_array(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        # numpy has no such dtype of its own: the same bits by way of integers.
        bits = tensor.contiguous().view(torch.int16).numpy()
        return Array(bits.view(to_dtype("bfloat16")))
    return to_flower(tensor.numpy())


def _to_tensor(array: Array) -> torch.Tensor:
    found = from_flower(array)
    if array.dtype == "bfloat16":
        return torch.from_numpy(found.view(np.int16).copy()).view(torch.bfloat16)
    # What is read may be read-only, and torch tensors must not be.
    return torch.from_numpy(np.array(found))
