"""Twenty thousand hostile frames: only `CodecError`, and no more than their share."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import get_codec, inspect_frame
from flwr_caesar.codec.mutate import KINDS, Parts, mutate, seal
from flwr_caesar.codec.testing import check_hostile_frames, sample_arrays

from .samples import CONFIGS
from .strategies import gaussian_model

FRAMES = 20_000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_mutated_frames_are_refused_or_harmless(config: dict[str, Any]) -> None:
    models = [gaussian_model(seed) for seed in range(3)]
    check_hostile_frames(
        get_codec(config), models, seed=1, frames=FRAMES // len(CONFIGS)
    )


def test_a_frame_taken_apart_and_joined_is_the_same() -> None:
    frame, _ = get_codec("dense").encode(sample_arrays(np.random.default_rng(0)))
    assert seal(Parts.of(frame).join()) == frame


def test_mutations_are_of_every_kind_and_repeatable() -> None:
    frame, _ = get_codec("topk").encode(gaussian_model())
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        runs.append([mutate(frame, rng) for _ in range(300)])
    assert runs[0] == runs[1]
    assert {kind for kind, _ in runs[0]} == set(KINDS)


def test_most_content_mutations_reach_the_codec() -> None:
    frame, _ = get_codec("topk").encode(gaussian_model())
    rng = np.random.default_rng(6)
    mutants = [mutate(frame, rng) for _ in range(600)]
    content = [mutant for kind, mutant in mutants if kind.startswith("content")]
    intact = 0
    for mutant in content:
        try:
            inspect_frame(mutant)
        except ValueError:
            continue
        intact += 1
    assert intact > 0.8 * len(content)
