"""The codecs that the conformance, hostile-frame and fuzz checks run on.

A new codec is one line here.
"""

from __future__ import annotations

from typing import Any

CONFIGS: list[dict[str, Any]] = [
    {"id": "dense"},
    {"id": "topk", "density": 0.05, "exact_below": 64},
    {"id": "topk", "density": 0.7, "exact_below": 0, "values": "float16"},
    {"id": "error_bounded", "rel": 0.01, "exact_below": 64},
    {"id": "lattice", "rate": 2.0, "exact_below": 64},
]
