"""Hostile frames: the core accepts, refuses and reads what the reference does."""

from __future__ import annotations

from .differential import Comparison, samples
from .jvm import Jvm

EACH = 12


def test_both_readers_make_the_same_of_hostile_frames(jvm: Jvm) -> None:
    """Few of each golden frame; `benchmarks/android_frames.py` compares 30,000."""
    found = samples()
    comparison = Comparison()
    comparison.run(jvm, found, EACH, seed=1)
    assert comparison.differences == []
    decoded = sum(
        n for (_, word), n in comparison.outcomes.items() if word == "decoded"
    )
    assert len(found) * EACH // 10 < decoded < len(found) * EACH // 2
