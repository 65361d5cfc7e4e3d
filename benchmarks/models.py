"""Models for benchmarks that need shapes and sizes, not training."""

from __future__ import annotations

from typing import Any

import numpy as np


def resnet18_arrays(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return arrays with the names and shapes of a ResNet-18 of 10 classes.

    122 tensors, 11.2 million parameters, batch-norm statistics and counters included;
    weights are Gaussian with He's scale.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def conv(name: str, out: int, inn: int, k: int) -> None:
        scale = np.float32(np.sqrt(2 / (inn * k * k)))
        shape = (out, inn, k, k)
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * scale

    def norm(name: str, size: int) -> None:
        arrays[f"{name}.weight"] = np.ones(size, np.float32)
        arrays[f"{name}.bias"] = np.zeros(size, np.float32)
        arrays[f"{name}.running_mean"] = np.zeros(size, np.float32)
        arrays[f"{name}.running_var"] = np.ones(size, np.float32)
        arrays[f"{name}.num_batches_tracked"] = np.array(0, np.int64)

    conv("conv1", 64, 3, 3)
    norm("bn1", 64)
    inn = 64
    for layer, out in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            prefix = f"layer{layer}.{block}"
            conv(f"{prefix}.conv1", out, inn, 3)
            norm(f"{prefix}.bn1", out)
            conv(f"{prefix}.conv2", out, out, 3)
            norm(f"{prefix}.bn2", out)
            if inn != out:
                conv(f"{prefix}.downsample.0", out, inn, 1)
                norm(f"{prefix}.downsample.1", out)
            inn = out
    arrays["fc.weight"] = rng.standard_normal((10, 512), np.float32) * np.float32(0.04)
    arrays["fc.bias"] = np.zeros(10, np.float32)
    return arrays


def gpt2_arrays(
    seed: int = 0, *, width: int = 768, layers: int = 12
) -> dict[str, np.ndarray[Any, Any]]:
    """Return arrays with the names and shapes of GPT-2, 124 million parameters.

    148 tensors of float32, 498 MB; weights are Gaussian with a deviation of 0.02. A
    width of 1,024 and 24 layers are its medium size, 355 million in 292 tensors.
    """
    rng = np.random.default_rng(seed)
    context, words = 1024, 50_257
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def weight(name: str, *shape: int) -> None:
        drawn = rng.standard_normal(shape, np.float32)
        drawn *= np.float32(0.02)
        arrays[f"{name}.weight"] = drawn

    def linear(name: str, rows: int, columns: int) -> None:
        weight(name, rows, columns)
        arrays[f"{name}.bias"] = np.zeros(columns, np.float32)

    def norm(name: str) -> None:
        arrays[f"{name}.weight"] = np.ones(width, np.float32)
        arrays[f"{name}.bias"] = np.zeros(width, np.float32)

    weight("wte", words, width)
    weight("wpe", context, width)
    for layer in range(layers):
        prefix = f"h.{layer}"
        norm(f"{prefix}.ln_1")
        linear(f"{prefix}.attn.c_attn", width, 3 * width)
        linear(f"{prefix}.attn.c_proj", width, width)
        norm(f"{prefix}.ln_2")
        linear(f"{prefix}.mlp.c_fc", width, 4 * width)
        linear(f"{prefix}.mlp.c_proj", 4 * width, width)
    norm("ln_f")
    return arrays


def lora_arrays(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return LoRA adapters, 3.1 million parameters in 192 tensors of float32.

    Of rank 8 beside four matrices of width 2,048 in each of 24 layers; B begins at 0.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for layer in range(24):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            prefix = f"layers.{layer}.{name}"
            drawn = rng.uniform(-0.02, 0.02, (8, 2048)).astype(np.float32)
            arrays[f"{prefix}.lora_A.weight"] = drawn
            arrays[f"{prefix}.lora_B.weight"] = np.zeros((2048, 8), np.float32)
    return arrays


def many_arrays(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return 2 million parameters in 1,200 tensors of float32."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((1200, 40, 42), np.float32) * np.float32(0.02)
    return {f"part.{i}.weight": array.copy() for i, array in enumerate(drawn)}


MODELS = {
    "lora": lora_arrays,
    "many": many_arrays,
    "resnet18": resnet18_arrays,
    "gpt2": gpt2_arrays,
    "gpt2-medium": lambda: gpt2_arrays(width=1024, layers=24),
}
