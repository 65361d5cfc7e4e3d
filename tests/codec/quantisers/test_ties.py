"""Updates of equal magnitudes: a rate below a bit sends some of the elements."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import CodecState, ErrorFeedback, Layout, get_codec

SHAPES = {"a": (200, 300), "b": (300, 200)}
SIZE = sum(rows * columns for rows, columns in SHAPES.values())


def signs(rng: np.random.Generator, outliers: float = 0.0) -> dict[str, np.ndarray]:
    """Return a first step of Adam, and a few elements that are larger."""
    found = {}
    for name, shape in SHAPES.items():
        x = 1e-3 * rng.choice([-1.0, 1.0], shape)
        found[name] = (x * np.where(rng.random(shape) < outliers, 3, 1)).astype("f4")
    return found


@pytest.mark.parametrize("rate", [0.3, 0.8])
@pytest.mark.parametrize("outliers", [0.0, 0.0005])
def test_something_is_sent_and_the_rate_is_met(rate: float, outliers: float) -> None:
    codec = get_codec({"id": "lattice", "rate": rate})
    update = signs(np.random.default_rng(0), outliers)
    state = CodecState(Layout.of(update))
    frame, _ = codec.encode(update, state)
    found, _ = codec.decode(frame, state)
    assert 0.4 * rate < 8 * len(frame) / SIZE < 1.1 * rate
    sent = np.concatenate([found[n].ravel() for n in SHAPES])
    given = np.concatenate([update[n].ravel() for n in SHAPES])
    kept = sent != 0
    assert kept.mean() > 0.4 * rate
    assert (np.sign(sent[kept]) == np.sign(given[kept])).all()


def test_the_rate_is_met_where_a_step_sends_too_little_of_unlike_elements() -> None:
    """Rounding normal variables to nearest, a step finer sends twice as much."""
    update = {"a": np.random.default_rng(0).normal(size=(300, 1000)).astype("f4")}
    codec = get_codec({"id": "lattice", "rate": 0.3, "dead_zone": 0.5})
    frame, _ = codec.encode(update, CodecState(Layout.of(update)))
    assert 0.15 < 8 * len(frame) / 300_000 < 1.05 * 0.3


def test_each_element_is_sent_in_its_turn() -> None:
    feedback = ErrorFeedback(get_codec({"id": "lattice", "rate": 0.5}))
    update = signs(np.random.default_rng(0))
    known = CodecState(Layout.of(update))
    state: CodecState | None = known
    reached = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for _ in range(8):
        frame, state = feedback.encode(update, state)
        found, _ = feedback.codec.decode(frame, known)
        for name in reached:
            reached[name] += found[name]
    assert all((array != 0).all() for array in reached.values())
