"""Files of named arrays: numpy's, safetensors, checkpoints of torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .codec import CodecError
from .codec.contract.layout import Array, to_dtype

_TORCH = (".pt", ".pth", ".bin", ".ckpt")
# Where what is saved besides a model has the model's tensors.
_INSIDE = ("state_dict", "model_state_dict", "model")
SUFFIXES = (".npz", ".safetensors", *_TORCH)


def load_arrays(path: str | Path) -> dict[str, Array]:
    """Read the arrays of a file without unpickling code.

    Parameters
    ----------
    path : path
        An ``.npz`` or ``.safetensors`` file, or a checkpoint of torch (``.pt``,
        ``.pth``, ``.bin``, ``.ckpt``): a state dict, or what has one as
        ``"state_dict"``, ``"model_state_dict"`` or ``"model"``. bfloat16 is kept.

    Raises
    ------
    CodecError
        If the file is missing or of no such kind, needs a package that is not there,
        or holds more than arrays.
    """
    path = Path(path)
    try:
        path.stat()
        if path.suffix in _TORCH:
            return _of_torch(path)
        if path.suffix == ".safetensors":
            return _of_safetensors(path)
        return _of_numpy(path)
    except CodecError:
        raise
    except OSError as err:
        raise CodecError(f"{path}: {err.strerror or err}") from err
    except (ValueError, EOFError, zipfile.BadZipFile) as err:
        raise CodecError(f"{path}: {err}") from err


def _of_numpy(path: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise CodecError(
            f"{path}: not an .npz file; the others that are read end in "
            f"{', '.join(SUFFIXES[1:])}"
        )
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _of_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Array] = load_file(path)
    except (SafetensorError, KeyError) as err:
        raise CodecError(f"{path}: {err}") from err
    return arrays


def _of_torch(path: Path) -> dict[str, Array]:
    try:
        import torch
    except ImportError as err:
        raise CodecError(
            f"{path} is read by torch: pip install 'flwr-caesar[torch]'"
        ) from err
    from pickle import UnpicklingError

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as err:
        reason = str(err).partition("\n")[0]
        raise CodecError(
            f"{path}: torch does not read it as tensors: {reason}"
        ) from err
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise CodecError(f"{path}: holds a {type(found).__name__}, no state dict")
    tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise CodecError(
            f"{path}: holds no tensors; its keys: {', '.join(map(str, found))[:200]}"
        )
    return {name: _as_array(tensor) for name, tensor in tensors.items()}


def _as_array(tensor: Any) -> Array:
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(to_dtype("bfloat16"))
    array: Array = tensor.numpy()
    return array
