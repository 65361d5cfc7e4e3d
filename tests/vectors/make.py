"""Write golden frames for every codec; frames that exist are never changed.

A case is a folder: `config.json`, and for each round `frame-N.bin` with what it
decodes to in `expected-N.json` (name, dtype, shape and the hex of the little-endian
elements, in layout order). Rounds are decoded in turn, each from the state after the
last. Published points (`lattice_point`) are no frames, published models
(`lattice_model` and those beside it) no codec's frames, frames with flags (`flags`)
need more than a state, and predicted ones (`prediction`) one that no frame leaves; they
have files of their own.

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
from flwr_caesar.codec.codecs.predicted import PredictedCodec
from flwr_caesar.codec.contract.layout import DTYPE_CODES, to_dtype
from flwr_caesar.codec.published.lattice_model import (
    LatticeRules,
    ModelPoint,
    encode_model,
    publish_model,
)
from flwr_caesar.codec.published.lattice_point import (
    LatticePoint,
    encode_point,
    publish,
)
from flwr_caesar.codec.published.model_steps import first_exponents, next_exponents

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray[Any, Any]]
Sample = Callable[[np.random.Generator], Arrays]


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


def kernels(rng: np.random.Generator) -> Arrays:
    """Return layers of every floating-point dtype, one beyond 16-bit range."""
    return {
        "conv.weight": rng.laplace(0, 0.1, (6, 5, 3, 3)).astype(np.float32),
        "half": rng.normal(0, 1, (9, 11)).astype(np.float16),
        "brain": rng.normal(0, 1, (7, 13)).astype(ml_dtypes.bfloat16),
        "double": rng.normal(0, 1, 67),
        "zero": np.zeros((8, 8), np.float32),
        "large": np.full(64, 65504, np.float16),
        "steps": np.array(int(rng.integers(1000)), np.int64),
    }


def wide(rng: np.random.Generator) -> Arrays:
    """Return enough elements for symbols with a table a tensor."""
    return {
        "embedding": rng.laplace(0, 1, (128, 129)).astype(np.float16),
        "head": rng.normal(0, 1, (16, 12)).astype(np.float32),
    }


def of_low_rank(rng: np.random.Generator) -> Arrays:
    """Return a matrix and a convolution that are nearly of low rank."""

    def nearly(rows: int, columns: int) -> np.ndarray[Any, Any]:
        strength = np.array([5.0, 1.0, 0.3])
        product = (rng.normal(size=(rows, 3)) * strength) @ rng.normal(
            size=(3, columns)
        )
        return product + rng.laplace(0, 0.3, (rows, columns))

    return {
        "fc": nearly(72, 120).astype(np.float32),
        "conv": nearly(24, 360).reshape(24, 40, 3, 3).astype(np.float32),
        "noise": rng.laplace(0, 1, (30, 40)).astype(np.float32),
    }


def nothing_else(rng: np.random.Generator) -> Arrays:
    """Return matrices of rank 1, of which nothing is left beside a product."""
    return {
        name: np.outer(rng.normal(size=rows), rng.normal(size=columns))
        .astype(np.float32)
        .reshape(shape)
        for name, rows, columns, shape in (
            ("fc", 72, 120, (72, 120)),
            ("conv", 24, 360, (24, 40, 3, 3)),
            ("noise", 30, 40, (30, 40)),
        )
    }


def persistent(rng: np.random.Generator) -> Arrays:
    """Return elements whose magnitudes last, with signs that do not."""
    size = np.exp(np.random.default_rng(98).normal(0, 1.2, (40, 50)))
    return {"w": (size * rng.normal(0, 1, size.shape)).astype(np.float32)}


def unlike(rng: np.random.Generator) -> Arrays:
    """Return layers of scales far from each other, frozen ones among them."""
    rows = np.exp(rng.normal(0, 2.5, (40, 1)))
    arrays = {
        "weight": rows * rng.laplace(0, 1e-3, (40, 90)),
        "frozen": np.zeros((30, 40)),
        "tiny": rng.laplace(0, 1e-12, (40, 45)),
        "huge": rng.normal(0, 1e9, 250),
        "bias": rng.normal(0, 1e-9, 40),
        "still": np.zeros(7),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def adapter(rng: np.random.Generator) -> Arrays:
    """Return a few small tensors beside frozen ones."""
    arrays = unlike(rng)
    return {n: arrays[n][:9] if n in ("weight", "tiny") else arrays[n] for n in arrays}


def rectified(rng: np.random.Generator) -> Arrays:
    """Return layers whose outputs, inputs or no channels have signs of their own."""

    def signed(shape: tuple[int, ...], axis: int, share: float) -> np.ndarray[Any, Any]:
        own = rng.choice([-1, 1], [n if i == axis else 1 for i, n in enumerate(shape)])
        own = np.where(rng.random(shape) < share, own, -own)
        return (own * np.abs(rng.laplace(0, 0.1, shape))).astype(np.float32)

    return {
        "outputs": signed((9, 8, 3, 3), 0, 0.95),
        "inputs": signed((70, 12), 1, 0.9),
        "half": signed((6, 60), 0, 0.98).astype(np.float16),
        "vector": np.abs(rng.normal(0, 0.1, 90)).astype(np.float32),
        "none": rng.laplace(0, 0.1, (30, 10)).astype(np.float32),
        "zero": np.zeros((8, 8), np.float32),
        "bias": rng.normal(0, 0.1, 9).astype(np.float32),
    }


def lasting(rng: np.random.Generator) -> Arrays:
    """Return layers whose signs, magnitudes, both or neither last."""
    shared = np.random.default_rng(96)
    rows = np.exp(shared.normal(0, 1.5, (60, 1))) * shared.normal(0, 1, (60, 50))
    size = np.exp(shared.normal(0, 1.2, (40, 50)))
    arrays = {
        "both": rows + rng.normal(0, 0.2, rows.shape),
        "size": size * rng.normal(0, 1, size.shape),
        "neither": rng.laplace(0, 0.5, (9, 8, 3, 3)),
        "vector": shared.normal(0, 1, 80) + rng.normal(0, 0.1, 80),
        "bias": rng.normal(0, 1, 5),
    }
    found = {name: array.astype(np.float32) for name, array in arrays.items()}
    return {**found, "half": found["both"][:10].astype(np.float16)}


def related(step: int) -> Sample:
    """Return layers that are low-rank, last, do both, and do neither."""

    def sample(rng: np.random.Generator) -> Arrays:
        shared = np.random.default_rng(97)

        def low_rank() -> np.ndarray[Any, Any]:
            left = shared.normal(0, 1, (40, 2)) + 0.1 * rng.normal(0, 1, (40, 2))
            return left @ shared.normal(0, 1, (2, 54))

        lasting = shared.standard_t(2, (30, 60)) * (-0.8) ** step
        both = low_rank() + rng.normal(0, 0.2, (40, 54))
        both += shared.standard_t(1.5, both.shape)
        arrays = {
            "low_rank": low_rank().reshape(40, 6, 3, 3)
            + rng.normal(0, 0.1, (40, 6, 3, 3)),
            "lasting": lasting,
            "both": both,
            "neither": rng.standard_t(3, (9, 70)),
            "vector": rng.laplace(0, 1, 80),
            "bias": rng.normal(0, 1, 5),
            "zero": np.zeros((8, 9)),
        }
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        return {**arrays, "steps": np.array(step, np.int64)}

    return sample


def training(step: int) -> Sample:
    """Return layers whose rounds relate in each way that has a predictor."""

    def sample(rng: np.random.Generator) -> Arrays:
        shared = np.random.default_rng(99)
        noise = {axis: rng.normal(0, 1, axis).astype(np.float32) for axis in (5, 48)}
        momentum = shared.normal(0, 1, (48, 50)).astype(np.float32)
        swing = shared.normal(0, 1, (40, 60)).astype(np.float32) * (-1) ** step
        size = np.abs(shared.normal(0, 1, (40, 20, 3, 3))).astype(np.float32) + 1
        sign = rng.choice([-1, 1], (40, 20, 1, 1)).astype(np.float32)
        small = rng.uniform(-1, 1, (6, 40)).astype(np.float32)
        return {
            "momentum": momentum * (1 + noise[48][:, None] / 50),
            "swing": np.sign(swing)
            * np.abs(shared.normal(1, 0.1, (40, 60))).astype("f4")
            + rng.normal(0, 0.05, (40, 60)).astype(np.float32),
            "kernels": size * sign + rng.normal(0, 0.1, size.shape).astype(np.float32),
            "offset": np.float32(1000) + small / 68,
            "constant": np.full((3, 50), 0.3, np.float32),
            "noise": rng.laplace(0, 1, (5, 4, 9)).astype(np.float32),
            "bias": noise[5],
        }

    return sample


def swinging(step: int) -> Sample:
    """Return convolutions whose magnitudes last, with signs of all three kinds."""

    def sample(rng: np.random.Generator) -> Arrays:
        shared = np.random.default_rng(96)
        size = np.exp(shared.normal(0, 1, (12, 8, 3, 3)))
        sign = shared.choice([-1, 1], size.shape)
        noise = 1 + rng.normal(0, 0.1, size.shape)
        kernel = rng.choice([-1, 1], (12, 8, 1, 1))
        arrays = {
            "swing": size * sign * noise * (-1) ** step,
            "stays": size * sign * noise,
            "kernels": size * kernel * noise,
            "noise": rng.laplace(0, 1, (6, 5, 3, 3)),
            "zero": np.zeros((4, 3, 3, 3)),
            "linear": size.reshape(96, 9) * rng.choice([-1, 1], (96, 9)),
        }
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    return sample


_LOSSY_ALL = {"exact_below": 0}
_KERNELS = {"exact_below": 100}
_TINY = {"exact_below": 60}


def _twice(codec_id: str, **parameters: Any) -> tuple[dict[str, Any], list[Sample]]:
    return {"id": codec_id, **parameters}, [kernels, kernels]


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
    "topk/scaled-float16": (
        {"id": "topk", "density": 0.1, "values": "float16", **_LOSSY_ALL},
        [adapter, adapter],
    ),
    "topk/unary-gaps": ({"id": "topk", "density": 0.45, **_KERNELS}, [network]),
    "topk/bitmap": ({"id": "topk", "density": 0.45, **_KERNELS}, [last_largest]),
    "topk/complement": ({"id": "topk", "density": 0.9, **_KERNELS}, [network]),
    "topk/all": ({"id": "topk", "density": 1.0, **_KERNELS}, [network]),
    "caesar_model/kernels": _twice("caesar_model", drop_fraction=0.6, **_TINY),
    "caesar_model/every-dtype": (
        {"id": "caesar_model", "drop_fraction": 1.0, **_LOSSY_ALL},
        [every_dtype],
    ),
    "cast/float16": _twice("cast", dtype="float16", **_TINY),
    "cast/bfloat16": _twice("cast", dtype="bfloat16", **_TINY),
    "correlation/rounds": (
        {"id": "correlation", "density": 0.1, **_TINY},
        [related(0), related(1), related(2)],
    ),
    "correlation/without-memory": (
        {"id": "correlation", "density": 0.1, "memory": False, **_TINY},
        [related(0), related(1)],
    ),
    "correlation/every-dtype": _twice("correlation", density=0.2, **_TINY),
    "correlation/many-levels": (
        {"id": "correlation", "density": 0.6, "bits": 3.5, **_TINY},
        [wide, wide],
    ),
    "error_bounded/rounds": (
        {"id": "error_bounded", "rel": 0.01, **_TINY},
        [training(0), training(1), training(2)],
    ),
    "error_bounded/absolute": (
        {"id": "error_bounded", "abs_bound": 1e-4, **_LOSSY_ALL},
        [kernels, kernels],
    ),
    "error_bounded/history": (
        {"id": "error_bounded", "rel": 0.003, **_TINY},
        [persistent, persistent],
    ),
    "error_bounded/compact": (
        {"id": "error_bounded", "rel": 0.03, "compact": True, **_TINY},
        [training(0), training(1), training(2)],
    ),
    "error_bounded/brief": (
        {"id": "error_bounded", "rel": 0.1, "compact": True, **_TINY},
        [training(0), training(1), training(2)],
    ),
    "error_bounded/products": (
        {"id": "error_bounded", "rel": 0.03, "compact": True, "rank": 4, **_TINY},
        [of_low_rank, of_low_rank],
    ),
    "error_bounded/paper": (
        {"id": "error_bounded", "rel": 0.02, "predictor": "paper", **_TINY},
        [swinging(0), swinging(1), swinging(2)],
    ),
    "error_bounded/all-predictors": (
        {"id": "error_bounded", "rel": 0.02, "predictor": "all", **_TINY},
        [swinging(0), swinging(1), swinging(2)],
    ),
    "lattice/rate": _twice("lattice", rate=1.5, **_TINY),
    "lattice/step": _twice("lattice", step=0.003, **_LOSSY_ALL),
    "lattice/large-integers": _twice("lattice", step=1e-4, **_TINY),
    "lattice/fine": _twice("lattice", rate=2.0, exact_below=0, fine_below=100),
    "lattice/small": (
        {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 100},
        [network, network],
    ),
    "lattice/small-steps": (
        {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 100},
        [adapter, adapter],
    ),
    "lattice/steps": (
        {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 1024},
        [unlike, unlike],
    ),
    "lattice/nearest": _twice("lattice", nmse=0.2, dead_zone=0.5, **_TINY),
    "lattice/compact": (
        {"id": "lattice", "step": 0.06, "exact_below": 60, "compact": True},
        [rectified, rectified],
    ),
    "lattice/compact-small": (
        {"id": "lattice", "rate": 1.5, "exact_below": 60, "compact": True},
        [rectified],
    ),
    "lattice/compact-large": (
        {"id": "lattice", "step": 0.3, "exact_below": 60, "compact": True},
        [persistent],
    ),
    "lattice/compact-steps": (
        {
            "id": "lattice",
            "rate": 0.5,
            "exact_below": 0,
            "fine_below": 1024,
            "compact": True,
        },
        [unlike, unlike],
    ),
    "lattice/brief": (
        {"id": "lattice", "nmse": 0.1, "exact_below": 60, "compact": True},
        [rectified, rectified],
    ),
    "lattice/brief-steps": (
        {
            "id": "lattice",
            "nmse": 0.3,
            "exact_below": 0,
            "fine_below": 100,
            "compact": True,
        },
        [adapter, adapter],
    ),
    "lattice/memory-brief": (
        {
            "id": "lattice",
            "nmse": 0.3,
            "exact_below": 60,
            "compact": True,
            "memory": True,
        },
        [lasting, lasting, lasting],
    ),
    "lattice/products": (
        {"id": "lattice", "nmse": 0.1, "compact": True, "rank": 4, **_TINY},
        [of_low_rank, of_low_rank, nothing_else],
    ),
    "lattice/memory-products": (
        {
            "id": "lattice",
            "nmse": 0.02,
            "compact": True,
            "memory": True,
            "rank": 3,
            **_TINY,
        },
        [of_low_rank, of_low_rank],
    ),
    "lattice/memory": (
        {
            "id": "lattice",
            "nmse": 0.1,
            "exact_below": 60,
            "compact": True,
            "memory": True,
        },
        [lasting, lasting, lasting],
    ),
    "lattice/memory-steps": (
        {
            "id": "lattice",
            "rate": 0.5,
            "exact_below": 0,
            "fine_below": 1024,
            "compact": True,
            "memory": True,
        },
        [unlike, unlike, unlike],
    ),
    "predicted/topk": _twice("predicted", density=0.3, **_TINY),
    "predicted/quantized": _twice(
        "predicted", compressor="quantized", density=0.4, bits=4, **_TINY
    ),
    "prune/kernels": _twice("prune", prune_rate=0.7, **_TINY),
    "prune/every-axis": _twice("prune", prune_rate=0.7, exclude_1d=False, **_TINY),
    "prune/eight-bits": _twice("prune", prune_rate=0.5, bits=8, **_TINY),
    "prune/four-bits": (
        {"id": "prune", "prune_rate": 0.0, "bits": 4, **_TINY},
        [kernels],
    ),
    "prune/one-bit": _twice("prune", prune_rate=0.6, bits=1, **_TINY),
    "prune/power-of-two": _twice(
        "prune", prune_rate=0.3, bits=4, levels="power_of_two", **_TINY
    ),
    "prune/relative": (
        {"id": "prune", "prune_rate": 0.6, "relative": True},
        [adapter],
    ),
    "qsgd/one-level": _twice("qsgd", levels=1, **_TINY),
    "qsgd/many-levels": _twice("qsgd", levels=255, norm="l2", **_TINY),
    "qsgd/symbols": ({"id": "qsgd", "levels": 4, **_TINY}, [wide]),
    "qsgd/symbols-in-two-parts": ({"id": "qsgd", "levels": 255, **_TINY}, [wide]),
    "qsgd/block": _twice("qsgd", levels=65536, norm="l2", **_TINY),
    "qsgd/density": _twice("qsgd", levels=16, norm="l2", density=0.3, **_TINY),
    "qsgd/bucket": _twice("qsgd", levels=16, norm="l2", bucket=5, **_TINY),
    "qsgd/bucket-symbols": (
        {"id": "qsgd", "levels": 255, "density": 0.4, "bucket": 96, **_TINY},
        [wide],
    ),
    "quantized/uniform": _twice("quantized", density=0.3, bits=4.5, **_TINY),
    "quantized/power-of-two": _twice(
        "quantized", density=1.0, bits=3, levels="power_of_two", **_TINY
    ),
    "rotated/one-bit": (
        {"id": "rotated", "bits": 1, **_KERNELS},
        [network, network],
    ),
    "rotated/two-bits": (
        {"id": "rotated", "bits": 2, "scale": "least_squares", **_LOSSY_ALL},
        [every_dtype],
    ),
    "rotated/three-bits": (
        {"id": "rotated", "bits": 3, "seed": 7, **_KERNELS},
        [network],
    ),
    "rotated/four-bits": ({"id": "rotated", "bits": 4, **_KERNELS}, [network]),
    "signs/kernels": _twice("signs", **_TINY),
    "ternary/kernels": _twice("ternary", density=0.1, **_TINY),
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


POINTS = HERE / "lattice_point"
POINT_LAYOUT = Layout.of({"conv": np.zeros((6, 5, 3, 3)), "b": np.zeros(7)})


def write_points() -> None:
    """Write lattice points: one whole, then differences at finer and coarser steps."""
    POINTS.mkdir()
    rng = np.random.default_rng(5)
    w = np.zeros(POINT_LAYOUT.num_params, np.float32)
    before: LatticePoint | None = None
    for i, exponent in enumerate((-6, -9, -4)):
        w += rng.normal(0, 0.3, len(w)).astype(np.float32)
        point = publish(w, before, exponent)
        data = encode_point(point, before, POINT_LAYOUT.tensors)
        (POINTS / f"point-{i}.bin").write_bytes(data)
        text = json.dumps(
            {"exponent": point.exponent, "indices": point.indices.tolist()}
        )
        (POINTS / f"expected-{i}.json").write_text(text + "\n")
        before = point


MODELS = HERE / "lattice_model"


def write_models() -> None:
    """Write published models: one whole, then changes at finer and coarser steps."""
    MODELS.mkdir()
    rng = np.random.default_rng(6)
    w = every_dtype(rng) | odd_shapes(rng) | network(rng)
    w["special"] = w["special"] / np.float32(2**50)
    before: ModelPoint | None = None
    for i, exponent in enumerate((-6, -9, -4)):
        for name, array in w.items():
            if array.dtype.kind == "f":
                w[name] = (array + rng.normal(0, 0.05, array.shape)).astype(array.dtype)
        point = publish_model(
            w, before, exponent, LatticeRules(exact_below=7, fine_below=100)
        )
        frame = encode_model(point, before)
        (MODELS / f"frame-{i}.bin").write_bytes(frame)
        text = json.dumps(describe(point.arrays()), ensure_ascii=False, indent=1)
        (MODELS / f"expected-{i}.json").write_text(text + "\n", encoding="utf-8")
        before = point


STEPS = HERE / "lattice_model_steps"


def write_model_steps() -> None:
    """Write published models whose tensors have steps, gaps and forms of their own."""
    STEPS.mkdir()
    rng = np.random.default_rng(7)
    masks = {
        "mask": np.triu(np.full((9, 9), -np.inf, np.float32), 1),
        "seen": np.array([np.inf, -np.inf, 0.5], np.float64),
        "half": rng.normal(0, 1, (20, 11)).astype(np.float16),
        "brain": rng.normal(0, 1, 90).astype(ml_dtypes.bfloat16),
        "idle": rng.normal(0, 1, 33).astype(ml_dtypes.bfloat16),
        "count": np.array([5, 6], np.int16),
    }
    w = unlike(rng) | {"zero": np.zeros((40, 40), np.float32)} | masks
    before: ModelPoint | None = None
    for i in range(4):
        if before is not None:
            for name in ("weight", "tiny", "bias"):
                w[name] = w[name] * rng.uniform(0.8, 1.2, w[name].shape).astype("f4")
            w["half"] = (w["half"] * np.float16(1.01)).astype(np.float16)
            w["brain"] = np.where(np.arange(90) % 9 == i, -w["brain"], w["brain"])
            w["count"] = w["count"] + np.int16(1)
        if i == 2:
            w["seen"] = np.array([1.5, -2.5, 0.5])
            w["huge"] = w["huge"] * np.float32(1e20)
        steps = (
            first_exponents(w, bits=4)
            if before is None
            else next_exponents(w, before, 0.5)[1]
        )
        point = publish_model(w, before, steps)
        frame = encode_model(point, before)
        (STEPS / f"frame-{i}.bin").write_bytes(frame)
        text = json.dumps(describe(point.arrays()), ensure_ascii=False, indent=1)
        (STEPS / f"expected-{i}.json").write_text(text + "\n", encoding="utf-8")
        before = point


COMPACT = HERE / "lattice_model_compact"
BRIEF = HERE / "lattice_model_brief"


def write_compact_models(folder: Path) -> None:
    """Write published models as compact blocks, of which one is a small one.

    Those of today tell scales in groups, and tables in parameters.
    """
    folder.mkdir()
    rng = np.random.default_rng(9)
    w = rectified(rng) | {"double": persistent(rng)["w"].astype(np.float64)}
    before: ModelPoint | None = None
    for i, exponent in enumerate((-2, -1, -2)):
        if before is not None:
            moved = rectified(rng) | {"double": persistent(rng)["w"]}
            for name in moved if i == 1 else ["bias"]:
                w[name] = (w[name] + moved[name]).astype(w[name].dtype)
        rules = LatticeRules(exact_below=7, fine_below=10)
        point = publish_model(w, before, exponent, rules)
        frame = encode_model(point, before)
        (folder / f"frame-{i}.bin").write_bytes(frame)
        text = json.dumps(describe(point.arrays()), ensure_ascii=False, indent=1)
        (folder / f"expected-{i}.json").write_text(text + "\n", encoding="utf-8")
        before = point


HALVES = HERE / "lattice_model_halves"


def write_model_halves() -> None:
    """Write published models of which 16-bit tensors are on the lattice."""
    HALVES.mkdir()
    rng = np.random.default_rng(10)
    w = {
        "weight": rng.normal(0, 0.5, (30, 30)).astype(ml_dtypes.bfloat16),
        "half": rng.normal(0, 0.5, (20, 31)).astype(np.float16),
        "large": np.clip(rng.normal(0, 3e4, 70), -65504, 65504).astype(np.float16),
        "grown": np.zeros(50, ml_dtypes.bfloat16),
        "scale": rng.random(9).astype(ml_dtypes.bfloat16),
        "single": rng.normal(0, 0.5, 100).astype(np.float32),
        "mask": np.array([-np.inf, 0, 1], np.float16),
        "few": np.array([1.5, -2], ml_dtypes.bfloat16),
    }
    before: ModelPoint | None = None
    rules = LatticeRules(exact_below=3, fine_below=40, halves=True)
    for i in range(4):
        if before is not None:
            for name in ("weight", "half", "grown", "single", "few"):
                change = rng.normal(0, 0.02 * 4.0**-i, w[name].shape)
                w[name] = (w[name].astype(np.float64) + change).astype(w[name].dtype)
        steps = (
            first_exponents(w, rules, 4)
            if before is None
            else next_exponents(w, before, 0.7)[1]
        )
        point = publish_model(w, before, steps, rules)
        frame = encode_model(point, before)
        (HALVES / f"frame-{i}.bin").write_bytes(frame)
        text = json.dumps(describe(point.arrays()), ensure_ascii=False, indent=1)
        (HALVES / f"expected-{i}.json").write_text(text + "\n", encoding="utf-8")
        before = point


FLAGS = HERE / "flags"


def write_flags() -> None:
    """Write a model with what is no number, and an update that is raised to a base."""
    FLAGS.mkdir()
    rng = np.random.default_rng(8)
    model = network(rng) | {"mask": np.array([-np.inf, 0, np.nan], np.float16)}
    model["wide"] = np.array([1e300, 2.0])
    codec = get_codec({"id": "topk", "density": 0.1, "exact_below": 0})
    frame, decoded, _ = codec.encode_decoded(model, finite=False)
    base = {"var": np.abs(rng.normal(0, 1, 300)).astype("f4"), **network(rng)}
    update = {"var": -base["var"], **network(rng)}
    lattice = get_codec({"id": "lattice", "rate": 0.1, "exact_below": 0})
    raised, told, _ = lattice.encode_decoded(update, base=base, nonnegative={"var"})
    cases = {"as-they-are": (frame, decoded), "raised": (raised, told)}
    for name, (data, arrays) in cases.items():
        (FLAGS / f"{name}.bin").write_bytes(data)
        text = json.dumps(describe(arrays), ensure_ascii=False, indent=1)
        (FLAGS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    text = json.dumps(describe(base), ensure_ascii=False, indent=1)
    (FLAGS / "base.json").write_text(text + "\n", encoding="utf-8")


PREDICTION = HERE / "prediction"


def write_prediction() -> None:
    """Write updates that are predicted from another one, by each compressor."""
    PREDICTION.mkdir()
    rng = np.random.default_rng(9)
    last = network(rng)
    update = {
        name: array
        if array.dtype.kind != "f"
        else (array + rng.normal(0, 0.01, array.shape)).astype("f4")
        for name, array in last.items()
    }
    for name, case in (("topk", {"density": 0.1}), ("quantized", {"bits": 3})):
        codec = PredictedCodec(compressor=name, exact_below=64, **case)
        state = CodecState(Layout.of(update), 1, codec.prediction(last))
        frame, decoded, _ = codec.encode_decoded(update, state)
        (PREDICTION / f"{name}.bin").write_bytes(frame)
        text = json.dumps(describe(decoded), ensure_ascii=False, indent=1)
        (PREDICTION / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    text = json.dumps(describe(last), ensure_ascii=False, indent=1)
    (PREDICTION / "last.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write the cases that are missing."""
    if not MODELS.exists():
        write_models()
    if not POINTS.exists():
        write_points()
    if not STEPS.exists():
        write_model_steps()
    for folder in (COMPACT, BRIEF):
        if not folder.exists():
            write_compact_models(folder)
    if not HALVES.exists():
        write_model_halves()
    if not FLAGS.exists():
        write_flags()
    if not PREDICTION.exists():
        write_prediction()
    for name, (config, samples) in CASES.items():
        folder = HERE / name
        if folder.exists():
            print(f"{name}: exists, kept")
        else:
            write_case(folder, config, samples)
            print(f"{name}: written")


if __name__ == "__main__":
    main()
