"""`correlation`: lock-step, budgets that hold, modes that pay, and their choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    ErrorFeedback,
    StateMismatchError,
    get_codec,
    inspect_frame,
)
from flwr_caesar.codec.codecs.correlation import CorrelationCodec
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.contract.frame import FrameReader
from flwr_caesar.codec.contract.layout import Layout

from ..library import Array, nmse

LOSSY = ("TENS", "POS", "STEP", "VAL")


def codec(**parameters: Any) -> CorrelationCodec:
    found = get_codec({"id": "correlation", "exact_below": 64, **parameters})
    assert isinstance(found, CorrelationCodec)
    return found


def updates(rounds: int, *, seed: int = 0) -> list[dict[str, Array]]:
    """Layers that last, flip, are of low rank, both, or none of these."""
    rng = np.random.default_rng(seed)
    lasting = rng.standard_t(2, (64, 90))
    basis = rng.normal(size=(2, 108))
    found = []
    for t in range(rounds):
        low_rank = rng.normal(size=(48, 2)) @ basis
        arrays = {
            "lasting": lasting + 0.02 * rng.normal(size=lasting.shape),
            "flipping": lasting * (-1) ** t + 0.02 * rng.normal(size=lasting.shape),
            "low_rank": low_rank.reshape(48, 12, 3, 3),
            "both": np.pad(low_rank, ((0, 16), (0, 0)))[:, :90] + 2 * lasting,
            "fresh": rng.standard_t(3, (16, 200)),
            "flat": rng.standard_t(3, 300),
            "bias": rng.normal(size=5),
        }
        found.append({name: a.astype(np.float32) for name, a in arrays.items()})
    return found


def content(frame: bytes) -> int:
    """Return the bytes of the sections of lossy tensors, before zstd."""
    sections = inspect_frame(frame).sections
    return sum(sections.get(tag, 0) for tag in LOSSY)


def test_lock_step_over_many_rounds_and_the_modes_that_pay() -> None:
    c = codec(density=0.05)
    mine = theirs = None
    for x in updates(12):
        frame, mine = c.encode(x, mine)
        decoded, theirs = c.decode(frame, theirs)
        assert mine.digest == theirs.digest
        assert (decoded["bias"] == x["bias"]).all()
    modes = c.modes(frame, mine.layout)
    assert modes["lasting"] == modes["flipping"] == "temporal"
    assert modes["low_rank"] in ("low_rank", "temporal_low_rank")
    assert modes["both"].startswith("temporal")
    assert "bias" not in modes


def test_a_negative_correlation_is_used() -> None:
    c = codec(density=0.02)
    state = None
    errors = []
    for x in updates(8):
        frame, after = c.encode({"w": x["flipping"]}, state)
        decoded, _ = c.decode(frame, state)
        errors.append(nmse(x["flipping"], decoded["w"]))
        state = after
    assert errors[-1] < 0.4 * errors[0]


def test_memory_and_low_rank_beat_top_k_of_about_the_same_bytes() -> None:
    plain = get_codec(
        {"id": "quantized", "density": 0.05, "bits": 6, "exact_below": 64}
    )
    c = codec(density=0.05)
    state = None
    for x in updates(4):
        frame, after = c.encode(x, state)
        decoded, _ = c.decode(frame, state)
        state = after
    theirs, _ = plain.encode(x, CodecState(Layout.of(x)))
    sparse, _ = plain.decode(theirs, CodecState(Layout.of(x)))
    assert len(frame) < 1.15 * len(theirs)
    for name in ("lasting", "flipping", "low_rank", "both"):
        assert nmse(x[name], decoded[name]) < 0.7 * nmse(x[name], sparse[name])


tensors = st.dictionaries(
    st.sampled_from("abc"),
    st.sampled_from([(70,), (8, 9), (9, 2, 7), (16, 8), (1, 80)]).flatmap(
        lambda shape: hnp.arrays(
            np.float32, shape, elements=st.floats(-(2.0**127), 2.0**127, width=32)
        )
    ),
    min_size=1,
)


@settings(max_examples=60)
@given(tensors, st.floats(0.01, 1), st.floats(2, 8), st.booleans(), st.integers(0, 99))
def test_no_mode_is_worse_than_the_direct_one(
    x: dict[str, Array], density: float, bits: float, memory: bool, seed: int
) -> None:
    c = codec(density=density, bits=bits, memory=memory)
    rng = np.random.default_rng(seed)
    state = None
    for t in range(3):
        frame, after = c.encode(x, state)
        decoded, again = c.decode(frame, state)
        assert after.digest == again.digest
        direct = codec(density=density, bits=bits, memory=False)
        alone, _ = direct.decode(direct.encode(x)[0])
        for name, array in x.items():
            scale = float(np.abs(array).max()) or 1.0
            error = np.square((array - decoded[name].astype(float)) / scale).sum()
            bound = np.square((array - alone[name].astype(float)) / scale).sum()
            if t == 0:
                assert error <= bound * (1 + 1e-4) + 1e-9
            energy = np.square(array.astype(float) / scale).sum()
            assert error <= energy * (1 + 1e-4) + 1e-9
        state = after if memory else None
        x = {k: v * np.float32(rng.choice([-0.5, 0.5, 0.9])) for k, v in x.items()}


@settings(max_examples=60)
@given(
    st.integers(150, 4000),
    st.sampled_from([2.0, 4.5, 8.0]),
    st.sampled_from(["peak", "variance", "uniform"]),
    st.integers(0, 9),
)
def test_the_budget_holds_whatever_the_modes(
    budget: int, bits: float, allocation: str, seed: int
) -> None:
    c = codec(density=1.0, bits=bits, budget=budget, allocation=allocation)
    state = None
    for x in updates(2, seed=seed):
        frame, state = c.encode(x, state)
        assert content(frame) <= budget


def test_a_budget_is_used() -> None:
    c = codec(density=1.0, budget=3000, memory=False)
    frame, _ = c.encode({"w": np.random.default_rng(0).normal(size=9000)})
    assert 0.7 * 3000 < content(frame) <= 3000
    loose = codec(density=0.01, budget=1 << 30)
    tight = codec(density=0.01)
    x = updates(1)[0]
    assert content(loose.encode(x)[0]) == content(tight.encode(x)[0])


def test_a_budget_that_holds_nothing_says_what_it_takes() -> None:
    with pytest.raises(CodecError, match="below the"):
        codec(budget=20).encode(updates(1)[0])


def test_bits_follow_the_spread_of_values() -> None:
    rng = np.random.default_rng(0)
    x = {
        "large": rng.normal(0, 8, (40, 250)).astype(np.float32),
        "small": rng.normal(0, 0.5, (40, 250)).astype(np.float32),
    }
    found = {}
    for allocation in ("peak", "variance", "uniform"):
        frame, _ = codec(bits=5, allocation=allocation, memory=False).encode(x)
        found[allocation] = FrameReader(frame).section("TENS", size=8)[2::4]
    assert found["uniform"] == bytes([5, 5])
    for allocation in ("peak", "variance"):
        large, small = found[allocation]
        assert large - small in (3, 4, 5)
        assert large + small <= 10


def test_a_frame_for_another_state_is_refused() -> None:
    c = codec()
    x = updates(3)
    states = [None]
    frames = []
    for arrays in x:
        frame, state = c.encode(arrays, states[-1])
        frames.append(frame)
        states.append(state)
    for state in (None, states[1], CodecState(states[1].layout)):
        with pytest.raises(StateMismatchError):
            c.decode(frames[2], state)


def test_a_state_without_memory_starts_anew() -> None:
    c = codec()
    x = updates(1)[0]
    frame, state = c.encode(x, CodecState(Layout.of(x)))
    _, theirs = c.decode(frame, CodecState(Layout.of(x)))
    assert state.digest == theirs.digest
    assert state.version == 1


@pytest.mark.filterwarnings("error")
def test_steps_beyond_float32_are_refused() -> None:
    c = codec(memory=False, density=0.3)
    frame, state = c.encode({"w": updates(1)[0]["low_rank"]})
    parts = Parts.of(frame)
    (entry,) = [e for e in parts.entries if e[0] == b"STEP"]
    entry[4] = np.full(len(entry[4]) // 4, 3e38, "<f4").tobytes()
    with pytest.raises(CodecError, match="infinity"):
        c.decode(seal(parts.join()), CodecState(state.layout))


def test_without_memory_frames_are_independent() -> None:
    c = codec(memory=False)
    x = updates(2)
    _, state = c.encode(x[0])
    frame, after = c.encode(x[1], state)
    assert after.arrays == {}
    decoded, _ = c.decode(frame, CodecState(Layout.of(x[1])))
    again, _ = c.decode(c.encode(x[1])[0])
    assert all((decoded[name] == again[name]).all() for name in decoded)
    assert set(c.modes(frame, after.layout).values()) <= {"direct", "low_rank"}


def test_error_feedback_sends_everything_in_the_end() -> None:
    c = ErrorFeedback(codec(density=0.2))
    x = updates(1, seed=4)[0]
    total = {name: np.zeros_like(a, np.float64) for name, a in x.items()}
    state = receiver = None
    for t in range(15):
        frame, state = c.encode(
            x if t == 0 else {name: np.zeros_like(a) for name, a in x.items()}, state
        )
        decoded, receiver = c.decode(frame, receiver)
        assert state.digest == receiver.digest
        for name in total:
            total[name] += decoded[name]
    for name, array in x.items():
        assert nmse(array, total[name]) < 0.05


def test_modes_of_another_codecs_frame_are_refused() -> None:
    x = updates(1)[0]
    frame, state = get_codec("topk").encode(x)
    with pytest.raises(CodecError, match="another codec"):
        codec().modes(frame, state.layout)


@pytest.mark.parametrize(
    "parameters",
    [
        {"density": 0},
        {"density": 1.5},
        {"bits": 1},
        {"bits": 9},
        {"budget": -1},
        {"allocation": "fair"},
        {"exact_below": -1},
    ],
)
def test_senseless_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="correlation"):
        codec(**parameters)
