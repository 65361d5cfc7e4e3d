"""Twenty thousand hostile frames: only `CodecError`, and no more than their share."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
)
from flwr_caesar.codec.conformance.mutate import KINDS, Parts, mutate, seal
from flwr_caesar.codec.conformance.suite import check_hostile_frames, sample_arrays
from tests.vectors.make import adapter, network, of_low_rank, unlike

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


FORMS = {
    "few": ({"rate": 0.3, "fine_below": 100}, network),
    "few with steps": ({"rate": 0.3, "fine_below": 100}, adapter),
    "steps": ({"rate": 0.3, "fine_below": 1024}, unlike),
    "large integers": ({"step": 1e-7}, network),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FORMS)
def test_mutated_frames_of_every_form_of_a_lattice(name: str) -> None:
    parameters, sample = FORMS[name]
    codec = get_codec({"id": "lattice", "exact_below": 0, **parameters})
    models = [sample(np.random.default_rng(seed)) for seed in range(3)]
    check_hostile_frames(codec, models, seed=2, frames=800)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "config",
    [
        {"id": "error_bounded", "rel": 0.03},
        {"id": "lattice", "nmse": 0.3},
        {"id": "lattice", "nmse": 0.1, "memory": True},
    ],
    ids=json.dumps,
)
def test_mutated_frames_with_products(config: dict[str, Any]) -> None:
    codec = get_codec({**config, "exact_below": 0, "compact": True, "rank": 4})
    models = [of_low_rank(np.random.default_rng(seed)) for seed in range(3)]
    assert "OTAB" in inspect_frame(codec.encode(models[0])[0]).sections
    check_hostile_frames(codec, models, seed=5, frames=800)


@pytest.mark.filterwarnings("error")
def test_mutated_frames_with_scaled_values() -> None:
    codec = get_codec({"id": "topk", "exact_below": 0, "values": "float16"})
    models = [unlike(np.random.default_rng(seed)) for seed in range(2)]
    check_hostile_frames(codec, models, seed=3, frames=800)


@pytest.mark.filterwarnings("error")
def test_mutated_frames_with_flags() -> None:
    rng = np.random.default_rng(4)
    model = {**network(rng), "mask": np.array([-np.inf, 0, np.nan], np.float16)}
    base = {"var": np.abs(rng.normal(0, 1, 300)).astype("f4"), **network(rng)}
    update = {**base, "var": -base["var"]}
    codec = get_codec({"id": "lattice", "rate": 0.1, "exact_below": 0})
    raised, _, _ = codec.encode_decoded(update, base=base, nonnegative={"var"})
    for frame, arrays in (
        (codec.encode(model, finite=False)[0], model),
        (raised, update),
    ):
        assert inspect_frame(frame).flags
        layout = Layout.of(arrays)
        for i in range(1500):
            kind, hostile = mutate(frame, rng)
            held = CodecState(layout) if i % 4 else None
            try:
                found, _ = codec.decode(
                    hostile, held, max_bytes=10**6, finite=False, base=base
                )
            except CodecError:
                continue
            except Exception as err:
                raise AssertionError(f"{kind}: {err!r}") from err
            assert held is None or Layout.of(found).same_shapes(layout)


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
