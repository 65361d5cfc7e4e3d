"""The codecs that the conformance, hostile-frame and fuzz checks run on.

A new codec is one line here.
"""

from __future__ import annotations

from typing import Any

CONFIGS: list[dict[str, Any]] = [
    {"id": "caesar_model", "drop_fraction": 0.6, "exact_below": 64},
    {"id": "cast", "dtype": "float16", "exact_below": 64},
    {"id": "cast", "dtype": "bfloat16", "exact_below": 0},
    {"id": "correlation", "density": 0.2, "exact_below": 64},
    {"id": "correlation", "memory": False, "allocation": "uniform", "exact_below": 0},
    {"id": "dense"},
    {"id": "predicted", "density": 0.2, "exact_below": 64},
    {"id": "predicted", "compressor": "quantized", "bits": 4, "exact_below": 0},
    {"id": "prune", "prune_rate": 0.4, "exclude_1d": False},
    {"id": "prune", "bits": 8, "exact_below": 64},
    {"id": "prune", "bits": 3, "levels": "power_of_two"},
    {"id": "prune", "bits": 1},
    {"id": "qsgd", "levels": 4096, "density": 0.5, "exact_below": 64},
    {"id": "qsgd", "levels": 7, "exact_below": 64},
    {"id": "qsgd", "levels": 16, "norm": "l2", "bucket": 50, "exact_below": 0},
    {"id": "qsgd", "levels": 1, "norm": "l2", "exact_below": 0},
    {"id": "quantized", "density": 0.2, "bits": 4.5, "exact_below": 64},
    {"id": "quantized", "levels": "power_of_two", "exact_below": 0},
    {"id": "rotated", "bits": 1, "exact_below": 64},
    {"id": "rotated", "bits": 4, "scale": "least_squares", "exact_below": 0},
    {"id": "signs", "exact_below": 0},
    {"id": "ternary", "density": 0.05, "exact_below": 64},
    {"id": "topk", "density": 0.05, "exact_below": 64},
    {"id": "topk", "density": 0.7, "exact_below": 0, "values": "float16"},
    {"id": "error_bounded", "rel": 0.01, "exact_below": 64},
    {"id": "error_bounded", "rel": 0.1, "exact_below": 64, "compact": True},
    {"id": "error_bounded", "predictor": "all", "exact_below": 0},
    {"id": "error_bounded", "rel": 0.05, "compact": True, "rank": 8},
    {"id": "lattice", "rate": 2.0, "exact_below": 64},
    {"id": "lattice", "rate": 1.0, "exact_below": 4, "fine_below": 1024},
    {"id": "lattice", "rate": 1.0, "exact_below": 64, "compact": True},
    {"id": "lattice", "nmse": 0.1, "exact_below": 64, "compact": True, "rank": 8},
    {
        "id": "lattice",
        "step": 0.05,
        "exact_below": 4,
        "fine_below": 12,
        "compact": True,
        "memory": True,
    },
]
