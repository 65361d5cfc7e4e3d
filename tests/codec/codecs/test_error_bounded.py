"""`error_bounded`: the bound, lock-step, refusal, and gains where there are any."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    StateMismatchError,
    get_codec,
)
from flwr_caesar.codec.contract.frame import FrameReader, Section, write_frame
from flwr_caesar.codec.predictors.predict import Mode
from flwr_caesar.codec.predictors.published import AUTO, MODES


def codec(**parameters):
    return get_codec({"id": "error_bounded", "exact_below": 64, **parameters})


def drifting(rounds, *, noise=0.4, seed=0, shape=(6, 5, 3, 3)):
    """Updates that share a drift, with channels of very different scales."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1)))
    drift = rng.normal(size=shape)
    for t in range(rounds):
        x = scale * (drift + noise * rng.normal(size=shape)) * 2.0 ** (-t % 5)
        yield {
            "conv.weight": x.astype(np.float32),
            "fc.weight": rng.normal(size=(10, 10)).astype(np.float32),
            "fc.bias": rng.normal(size=10).astype(np.float32),
            "steps": np.array(t, np.int64),
        }


def check_bound(c, x, xhat):
    bounds = c.error_bound(x)
    for name in ("conv.weight", "fc.weight"):
        bound = c.rel * (float(x[name].max()) - float(x[name].min()))
        assert bounds[name] == bound
        error = np.abs(x[name].astype(np.float64) - xhat[name])
        assert error.max() <= bound, name
    assert bounds["fc.bias"] == bounds["steps"] == 0
    assert (x["fc.bias"] == xhat["fc.bias"]).all()
    assert x["steps"] == xhat["steps"]


def test_a_first_frame_for_who_knows_the_tensors_is_the_same_without_the_table():
    (x,) = drifting(1)
    whole, alone = codec().encode(x)
    known = CodecState(alone.layout)
    frame, after = codec().encode(x, known)
    assert len(frame) < len(whole)
    assert after.digest == alone.digest
    xhat, decoder = codec().decode(frame, known)
    check_bound(codec(), x, xhat)
    assert decoder.digest == after.digest


def test_bound_and_lock_step_for_a_thousand_rounds():
    sender, receiver = codec(rel=1e-2), codec(rel=1e-2)
    mine = theirs = None
    for x in drifting(1000, shape=(4, 3, 3, 3)):
        frame, mine = sender.encode(x, mine)
        xhat, theirs = receiver.decode(frame, theirs)
        check_bound(sender, x, xhat)
        assert mine.digest == theirs.digest
    assert mine.version == 1000


@pytest.mark.parametrize("predictor", [name for name in MODES if name != AUTO])
def test_bound_and_lock_step_with_each_predictor(predictor):
    sender, receiver = codec(predictor=predictor), codec(predictor=predictor)
    mine = theirs = None
    found = set()
    for x in drifting(12):
        frame, mine = sender.encode(x, mine)
        xhat, theirs = receiver.decode(frame, theirs)
        check_bound(sender, x, xhat)
        assert mine.digest == theirs.digest
        table = FrameReader(frame).section("TENS", size=9 * 2)
        found |= set(table[8::9])
    assert found <= set(MODES[predictor])
    assert predictor == "none" or len(found) > 1
    nbytes = sum(array.nbytes for array in mine.arrays.values())
    assert nbytes == sender.memory_nbytes(mine.layout)


def test_a_memory_without_scores_is_gone_on_from_without_the_papers_predictors():
    """Such as of before the setting was changed."""
    first, second, third = drifting(3)
    _, known = codec().encode(first)
    paper = codec(predictor="paper")
    frame, mine = paper.encode(second, known)
    xhat, theirs = paper.decode(frame, known)
    check_bound(paper, second, xhat)
    frame, mine = paper.encode(third, mine)
    xhat, theirs = paper.decode(frame, theirs)
    check_bound(paper, third, xhat)
    assert mine.digest == theirs.digest


def test_a_frame_that_claims_scores_which_nobody_remembers_is_refused():
    first, second = list(drifting(2))
    _, known = codec().encode(first)
    paper = codec(predictor="paper")
    frame, _ = paper.encode(second, known)
    reader = FrameReader(frame)
    sections = []
    for tag, size in reader.info.sections.items():
        data = bytearray(reader.section(tag, size=size))
        if tag == "TENS":
            data[8] = Mode.PAPER_OSCILLATION
        sections.append(Section(tag, bytes(data)))
    forged = write_frame(
        config=paper.config,
        layout_digest=known.layout.digest,
        sections=sections,
        state_version=known.version,
        state_digest=known.digest,
    )
    with pytest.raises(CodecError, match="scores that are not remembered"):
        paper.decode(forged, known)


def test_an_unknown_predictor_is_refused_with_the_names_there_are():
    with pytest.raises(CodecError, match="auto, none, signed, paper"):
        codec(predictor="lorenzo")


@pytest.mark.parametrize("rel", [1e-6, 1e-4, 1e-3, 0.3])
def test_bound_at_other_settings(rel):
    c = codec(rel=rel)
    mine = theirs = None
    for x in drifting(6):
        frame, mine = c.encode(x, mine)
        xhat, theirs = c.decode(frame, theirs)
        check_bound(c, x, xhat)
        assert mine.digest == theirs.digest


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros(1000, np.float32),
        np.full(1000, 3.25, np.float32),
        np.float32(1e6) + np.linspace(0, 1, 1000, dtype=np.float32),
        np.linspace(-3e38, 3e38, 1000, dtype=np.float32),
        np.linspace(-1e-42, 1e-42, 1000, dtype=np.float32),
        np.r_[np.zeros(999), 1e30].astype(np.float32),
    ],
    ids=["zeros", "constant", "offset", "huge", "subnormal", "outlier"],
)
def test_bound_on_awkward_tensors(tensor):
    c = codec(rel=1e-3)
    mine = theirs = None
    bound = 1e-3 * (float(tensor.max()) - float(tensor.min()))
    for factor in (1.0, 0.5, 0.75):
        x = {"w": (tensor * np.float32(factor)).reshape(10, 100)}
        frame, mine = c.encode(x, mine)
        xhat, theirs = c.decode(frame, theirs)
        error = np.abs(x["w"].astype(np.float64) - xhat["w"])
        assert error.max() <= factor * bound * (1 + 1e-6)
        assert mine.digest == theirs.digest


@pytest.mark.parametrize(
    "shape", [(300_000,), (1, 500, 300), (400, 500), (150, 64, 3, 3)], ids=str
)
def test_tensors_that_are_coded_piece_by_piece(shape):
    c = codec(rel=1e-3)
    mine = theirs = None
    rng = np.random.default_rng(9)
    magnitude = np.exp(rng.normal(size=shape))
    for t in range(3):
        kernels = shape[:2] + (1,) * (len(shape) - 2)
        x = magnitude * rng.choice([-1.0, 1.0], size=kernels)
        x.reshape(-1)[1000 * t] = 1e3
        x = {"w": x.astype(np.float32)}
        frame, mine = c.encode(x, mine)
        xhat, theirs = c.decode(frame, theirs)
        error = np.abs(x["w"].astype(np.float64) - xhat["w"])
        assert error.max() <= c.error_bound(x)["w"]
        assert mine.digest == theirs.digest
    if len(shape) == 4:
        assert FrameReader(frame).section("TENS", size=9)[8] == Mode.KERNEL_SIGNS


def test_absolute_bound():
    c = codec(abs_bound=0.01)
    x = {"w": np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)}
    xhat, _ = c.decode(c.encode(x)[0])
    assert np.abs(x["w"].astype(np.float64) - xhat["w"]).max() <= 0.01


def test_prediction_pays_where_rounds_are_alike():
    c = codec(rel=1e-2)
    x = list(drifting(4, noise=0.05, shape=(32, 16, 3, 3)))
    _, state = c.encode(x[0])
    state = c.encode(x[1], state)[1]
    assert len(c.encode(x[2], state)[0]) < 0.75 * len(c.encode(x[2])[0])


def test_prediction_costs_nothing_where_they_are_not():
    c = codec(rel=1e-2)
    rng = np.random.default_rng(5)
    x = [{"w": rng.normal(size=(64, 64)).astype(np.float32)} for _ in range(3)]
    _, state = c.encode(x[0])
    assert len(c.encode(x[1], state)[0]) < 1.01 * len(c.encode(x[1])[0])


def test_every_mode_round_trips():
    """Inputs for which each mode is the shortest, seen in the frame's own table."""
    c = codec(rel=2e-2)
    rng = np.random.default_rng(6)
    shape, kernels = (24, 24, 3, 3), (24, 24, 1, 1)
    magnitude = np.exp(rng.normal(size=shape))
    signs = rng.choice([-1.0, 1.0], size=shape)
    walk = np.zeros(shape)
    rounds = []
    for t in range(4):
        walk = walk + rng.normal(size=shape)
        uneven = magnitude * np.exp(0.3 * rng.normal(size=shape))
        x = {
            "previous": walk,
            "flip": (-1) ** t * signs * uneven,
            "kernel": rng.choice([-1.0, 1.0], size=kernels) * uneven,
            "none": rng.normal(size=shape),
            "raw": np.zeros(shape),
        }
        rounds.append({k: v.astype(np.float32) for k, v in x.items()})
    mine = theirs = None
    for x in rounds:
        frame, mine = c.encode(x, mine)
        xhat, theirs = c.decode(frame, theirs)
        for name in x:
            bound = 2e-2 * float(np.ptp(x[name]))
            assert np.abs(x[name] - xhat[name]).max() <= bound * (1 + 1e-6)
        assert mine.digest == theirs.digest
    table = FrameReader(frame).section("TENS", size=9 * len(rounds[0]))
    assert dict(zip(rounds[0], table[8::9], strict=True)) == {
        "previous": Mode.SCALED_PREVIOUS,
        "flip": Mode.OSCILLATION,
        "kernel": Mode.KERNEL_SIGNS,
        "none": Mode.NONE,
        "raw": Mode.RAW,
    }


def test_memory_is_each_tensors_own_by_name():
    """Tensors of one shape, which the paper's code lets share a memory."""
    c = codec()
    together = alone = None
    rng = np.random.default_rng(8)
    for _ in range(3):
        shape = (8, 8, 3, 3)
        x = {name: rng.normal(size=shape).astype(np.float32) for name in ("a", "b")}
        _, together = c.encode(x, together)
        _, alone = c.encode({"b": x["b"]}, alone)
    for kind in ("previous", "average", "magnitude"):
        own, other = together.arrays[f"{kind}/b"], together.arrays[f"{kind}/a"]
        assert own.tobytes() == alone.arrays[f"{kind}/b"].tobytes()
        assert own.tobytes() != other.tobytes()


def test_frame_for_another_state_is_refused():
    c = codec()
    x = list(drifting(4))
    frame1, s1 = c.encode(x[0])
    frame2, s2 = c.encode(x[1], s1)
    frame3, _ = c.encode(x[2], s2)
    _, d1 = c.decode(frame1)
    for state in (None, d1, CodecState(d1.layout)):
        with pytest.raises(StateMismatchError):
            c.decode(frame3, state)
    _, d2 = c.decode(frame2, d1)
    c.decode(frame3, d2)
    with pytest.raises(StateMismatchError):
        c.decode(frame2, d2)


def test_encoding_is_pure_and_deterministic():
    c = codec()
    x = list(drifting(3))
    kept = [{k: v.copy() for k, v in r.items()} for r in x]
    _, state = c.encode(x[0])
    digest = state.digest
    a, b = c.encode(x[1], state)[0], c.encode(x[1], state)[0]
    assert a == b
    assert CodecState(state.layout, state.version, state.arrays).digest == digest
    for before, after in zip(kept, x, strict=True):
        assert all((before[k] == after[k]).all() for k in before)


def test_decoded_arrays_are_not_the_memory():
    c = codec()
    frame, _ = c.encode(next(drifting(1)))
    xhat, state = c.decode(frame)
    digest = state.digest
    xhat["conv.weight"][...] = 0
    assert CodecState(state.layout, state.version, state.arrays).digest == digest


@pytest.mark.parametrize("parameters", [{"rel": 0}, {"rel": 1}, {"abs_bound": -1}])
def test_senseless_parameters_are_refused(parameters):
    with pytest.raises(CodecError):
        codec(**parameters)
