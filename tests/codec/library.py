"""What every test of the codec library shares: configurations and models."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.codec.contract.layout import DTYPE_CODES

Array = np.ndarray[Any, Any]

CONFIGS: list[dict[str, Any]] = [
    {"id": "cast", "dtype": "float16"},
    {"id": "cast", "dtype": "bfloat16"},
    {"id": "ternary", "density": 0.05},
    {"id": "signs"},
    {"id": "qsgd", "levels": 1, "norm": "linf"},
    {"id": "qsgd", "levels": 255, "norm": "l2"},
    {"id": "qsgd", "levels": 256, "norm": "l2", "density": 0.4},
    {"id": "qsgd", "levels": 16, "norm": "l2", "bucket": 512},
    {"id": "prune", "prune_rate": 0.4},
    {"id": "prune", "prune_rate": 0.4, "bits": 8},
    {"id": "prune", "prune_rate": 0.4, "bits": 5, "levels": "power_of_two"},
    {"id": "prune", "prune_rate": 0.4, "bits": 1},
    {"id": "prune", "prune_rate": 1.0, "exclude_1d": False},
    {"id": "caesar_model", "drop_fraction": 0.6},
    {"id": "caesar_model", "drop_fraction": 0.0},
    {"id": "predicted", "density": 0.3},
    {"id": "predicted", "compressor": "quantized", "density": 0.2, "bits": 4.5},
    {"id": "rotated", "bits": 1, "scale": "unbiased"},
    {"id": "rotated", "bits": 3, "scale": "least_squares"},
    {"id": "quantized", "density": 0.2, "bits": 4.5},
    {"id": "quantized", "levels": "power_of_two", "bits": 5},
    {"id": "dense"},
    {"id": "topk", "density": 0.05},
    {"id": "topk", "density": 0.3, "values": "float16"},
    {"id": "lattice", "rate": 2.0},
    {"id": "lattice", "nmse": 0.05, "compact": True, "rank": 16},
    {"id": "error_bounded", "rel": 0.01},
    {"id": "error_bounded", "rel": 0.01, "predictor": "paper"},
    {"id": "error_bounded", "rel": 0.01, "compact": True, "rank": 16},
    {"id": "correlation", "density": 0.2},
]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (3, 0, 2), (40,), (9, 5), (2, 3, 16)]
DTYPES = list(DTYPE_CODES)


def name_of(config: dict[str, Any]) -> str:
    """Return a test id."""
    return "-".join(str(value) for value in config.values())


def small(config: dict[str, Any]) -> Codec:
    """Return the codec with its threshold for exact tensors at 16 elements."""
    if config["id"] == "dense":  # exact anyhow
        return get_codec(config)
    return get_codec({"exact_below": 16, **config})


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a wire dtype name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def model_of_everything(seed: int = 0) -> dict[str, Array]:
    """Return a tensor of each dtype and shape."""
    rng = np.random.default_rng(seed)
    model = {}
    for dtype in DTYPES:
        for shape in SHAPES:
            values = np.asarray(rng.normal(0, 40, shape))
            if dtype in ("bool", "uint8", "uint16", "uint32", "uint64"):
                values = np.abs(values) // 1
            model[f"{dtype}{shape}"] = values.astype(numpy_dtype(dtype))
    return model


def small_model(seed: int = 0) -> dict[str, Array]:
    """Return a model of a few float32 layers and a counter."""
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.laplace(0, 0.1, (16, 8, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 1, 5).astype(np.float32),
        "steps": np.array(7, np.int64),
        "fc.weight": rng.standard_normal((30, 50)).astype(np.float32),
        "zero.weight": np.zeros((8, 8), np.float32),
    }


def reseal(frame: bytes | bytearray) -> bytes:
    """Return a frame whose checksum is right again."""
    body = bytes(frame[:-4])
    return body + struct.pack("<I", zlib.crc32(body))


def nmse(x: Array, decoded: Array) -> float:
    """Return ``||x - decoded||^2 / ||x||^2``."""
    x = x.astype(np.float64)
    return float(np.square(x - decoded).sum() / np.square(x).sum())
