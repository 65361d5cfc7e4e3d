"""Write golden frames for every codec; frames that exist are never changed.

A case is a folder: `config.json`, and for each round `frame-N.bin` with what it
decodes to in `expected-N.json` (name, dtype, shape and the hex of the little-endian
elements, in layout order). Rounds are decoded in turn, each from the state after the
last.

    python -m tests.vectors.make
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.layout import DTYPE_CODES, to_dtype

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray[Any, Any]]


def _values(rng: np.random.Generator, dtype: str, size: int) -> np.ndarray[Any, Any]:
    if dtype == "bfloat16":
        return rng.normal(0, 0.05, size).astype(ml_dtypes.bfloat16)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 0.05, size).astype(dtype)
    if dtype == "bool":
        return rng.random(size) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size, dtype, endpoint=True)


def every_dtype(rng: np.random.Generator) -> Arrays:
    """Return one odd-sized tensor of each dtype."""
    return {dtype: _values(rng, dtype, 37) for dtype in DTYPE_CODES}


def odd_shapes(rng: np.random.Generator) -> Arrays:
    """Return scalars, empty tensors, special values and names beyond ASCII."""
    special = np.array([0.0, -0.0, 1e-45, -1e-38, 3.4028235e38, -1.5], np.float32)
    return {
        "": np.array(-0.0, np.float32),
        "größe/重み 🙂": rng.normal(size=(3, 5)).astype(np.float32),
        "empty": np.zeros((3, 0, 2), np.float64),
        "special": special,
        "one": np.array([7], np.int64),
    }


def network(rng: np.random.Generator) -> Arrays:
    """Return a few layers; the kernels are large enough to be lossy."""
    return {
        "conv.weight": rng.normal(0, 0.05, (7, 4, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.05, 7).astype(np.float32),
        "bn.num_batches_tracked": np.array(int(rng.integers(1000)), np.int64),
        "head.weight": rng.normal(0, 0.05, (10, 23)).astype(np.float32),
    }


def last_largest(rng: np.random.Generator) -> Arrays:
    """Return layers of which the very last element is kept, so gaps cost n bits."""
    arrays = network(rng)
    arrays["head.weight"][-1, -1] = 1
    return arrays


def zeros(rng: np.random.Generator) -> Arrays:
    """Return a tensor that compresses to almost nothing, and a float16 one."""
    return {
        "z": np.zeros((5, 40), np.float32),
        "h": rng.normal(size=110).astype(np.float16),
    }


Sample = Callable[[np.random.Generator], Arrays]
_LOSSY_ALL = {"exact_below": 0}
_KERNELS = {"exact_below": 100}
CASES: dict[str, tuple[dict[str, Any], list[Sample]]] = {
    "dense/every-dtype": ({"id": "dense"}, [every_dtype, every_dtype]),
    "dense/odd-shapes": ({"id": "dense"}, [odd_shapes]),
    "dense/network": ({"id": "dense"}, [network, network]),
    "dense/zeros": ({"id": "dense"}, [zeros]),
    "dense/no-tensors": ({"id": "dense"}, [lambda rng: {}]),
    "topk/every-dtype": (
        {"id": "topk", "density": 0.2, **_LOSSY_ALL},
        [every_dtype, every_dtype],
    ),
    "topk/every-dtype-float16": (
        {"id": "topk", "density": 0.2, "values": "float16", **_LOSSY_ALL},
        [every_dtype],
    ),
    "topk/odd-shapes": ({"id": "topk", "density": 0.5, **_LOSSY_ALL}, [odd_shapes]),
    "topk/network-1-percent": (
        {"id": "topk", "density": 0.01, **_KERNELS},
        [network, network],
    ),
    "topk/network-float16": (
        {"id": "topk", "density": 0.1, "values": "float16", **_KERNELS},
        [network],
    ),
    "topk/unary-gaps": ({"id": "topk", "density": 0.45, **_KERNELS}, [network]),
    "topk/bitmap": ({"id": "topk", "density": 0.45, **_KERNELS}, [last_largest]),
    "topk/complement": ({"id": "topk", "density": 0.9, **_KERNELS}, [network]),
    "topk/all": ({"id": "topk", "density": 1.0, **_KERNELS}, [network]),
}


def describe(arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
    """Return arrays as JSON, bit for bit."""
    return [
        {
            "name": name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "hex": array.astype(to_dtype(array.dtype.name)).tobytes().hex(),
        }
        for name, array in arrays.items()
    ]


def write_case(folder: Path, config: dict[str, Any], samples: list[Sample]) -> None:
    """Write one case's rounds; the first frame carries its table, later ones do not."""
    codec = get_codec(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(codec.config, indent=1) + "\n")
    rng = np.random.default_rng(len(str(folder.name)))
    sender: CodecState | None = None
    receiver: CodecState | None = None
    for i, sample in enumerate(samples):
        frame, sender = codec.encode(sample(rng), sender)
        decoded, receiver = codec.decode(frame, receiver)
        assert receiver.layout == Layout.of(decoded)
        (folder / f"frame-{i}.bin").write_bytes(frame)
        text = json.dumps(describe(decoded), ensure_ascii=False, indent=1)
        (folder / f"expected-{i}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write the cases that are missing."""
    for name, (config, samples) in CASES.items():
        folder = HERE / name
        if folder.exists():
            print(f"{name}: exists, kept")
        else:
            write_case(folder, config, samples)
            print(f"{name}: written")


if __name__ == "__main__":
    main()
