"""A residual in 16 bits: what it drops, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flwr_caesar.codec import CodecError, Layout, get_codec
from flwr_caesar.sync import short as short_module
from flwr_caesar.sync.device import commit_update, receive
from flwr_caesar.sync.packing import describe, pack_memory, restore
from flwr_caesar.sync.protocol import DownloadHeader, model_digest
from flwr_caesar.sync.residual import add_residual
from flwr_caesar.sync.short import (
    EXACT_BELOW,
    LEAST_ROUNDING,
    ROUNDING,
    Short,
    ShortResidual,
)
from flwr_caesar.sync.state import DeviceState

from .parties import new_id, new_token

FLOATS = st.floats(-5e8, 5e8, width=32)


def short(array: np.ndarray) -> Short:
    found = Short.of(array)
    assert found is not None
    return found


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 40), elements=FLOATS))
def test_no_element_loses_more_than_is_written_down(array: np.ndarray) -> None:
    wide = short(array).wide().astype(np.float64)
    exact = array.astype(np.float64)
    most = np.maximum(ROUNDING * np.abs(exact), LEAST_ROUNDING * np.abs(exact).max())
    # A float32 near its own least number has fewer bits than a float16.
    assert (np.abs(wide - exact) <= most + 2.0**-149).all()


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 40), elements=FLOATS))
def test_it_rounds_as_numpy_does(array: np.ndarray) -> None:
    found = short(array)
    scaled = np.ldexp(array.astype(np.float64), -found.exponent)
    assert found.values.tobytes() == scaled.astype(np.float16).tobytes()
    again = np.ldexp(found.values.astype(np.float64), found.exponent)
    assert (found.wide() == again.astype(np.float32)).all()


def test_what_was_rounded_once_is_kept_as_it_is() -> None:
    """Keeping a residual that did not change drops nothing more."""
    array = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    once = short(array).wide()
    assert once.shape == (50, 40)
    assert (short(once).wide() == once).all()


@pytest.mark.parametrize("value", [2.0**30, 3e38, np.inf, np.nan])
def test_tensors_with_huge_elements_stay_in_32_bits(value: float) -> None:
    array = np.zeros(EXACT_BELOW, np.float32)
    array[7] = value
    residual = {"w": array}
    assert ShortResidual.of(residual, least_bytes=0) is residual


def test_small_tensors_and_other_dtypes_stay_as_they_are() -> None:
    large = np.linspace(-1, 1, EXACT_BELOW)
    residual = {
        "small": large[1:].astype(np.float32),
        "double": large,
        "large": large.astype(np.float32),
    }
    found = ShortResidual.of(residual, least_bytes=0)
    assert ShortResidual.of(residual) is residual
    assert isinstance(found, ShortResidual)
    assert list(found) == list(residual)
    assert found["small"] is residual["small"]
    assert found["double"] is residual["double"]
    assert found.nbytes == 4 * (EXACT_BELOW - 1) + 8 * EXACT_BELOW + 2 * EXACT_BELOW


def test_a_state_of_it_comes_back_and_names_its_format() -> None:
    left = np.random.default_rng(1).standard_normal(2000).astype(np.float32)
    residual = ShortResidual.of({"a/b": left, "c": left[:5]}, least_bytes=0)
    state = DeviceState(bytes(16), 5, residual=residual)
    assert describe(state)["format"] == 4
    assert describe(DeviceState(bytes(16), 5, residual={"c": left}))["format"] == 3
    memory = pack_memory(state)
    assert sum(array.nbytes for array in memory.values()) == 2 * 2000 + 4 * 5
    back = restore(describe(state), {}, memory)
    assert {name: a.tobytes() for name, a in back.residual.items()} == {
        name: a.tobytes() for name, a in residual.items()
    }


def test_what_rounding_drops_of_many_rounds_stays_within_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Computed = sent + residual + dropped, and dropped is what the page says."""
    monkeypatch.setattr(short_module, "LEAST_BYTES", 0)
    codec = get_codec({"id": "topk", "density": 0.05})
    rng = np.random.default_rng(2)
    model = {"w": np.zeros(4096, np.float32)}
    computed, sent = np.zeros(4096), np.zeros(4096)
    bound = np.zeros(4096)
    state = None
    rounds = 60
    for phase in range(1, rounds + 1):
        header = DownloadHeader(7, (1, phase), phase, (0, model_digest(model)))
        if state is not None:
            (last,) = state.pending
            header = DownloadHeader(
                *(7, (1, phase), phase, (0, model_digest(model))),
                base=(0, model_digest(model)),
                device=_device(state),
                applied=(last.upload_id,),
            )
        frame = get_codec("dense").encode(model)[0] if state is None else None
        got = receive(state, header, frame, train=True, new_token=new_token)
        assert got.model is not None
        update = (1e-3 * rng.standard_normal(4096)).astype(np.float32)
        done = commit_update(
            got.state, header, {"w": update}, codec=codec, new_id=new_id, want_sent=True
        )
        state = done.state
        computed += update
        sent += done.sent["w"]
        left = np.abs(state.residual["w"].astype(np.float64))
        bound += ROUNDING * left + LEAST_ROUNDING * left.max()
    dropped = computed - sent - state.residual["w"]
    noise = rounds * 2.0**-24 * np.abs(computed).max()
    assert (np.abs(dropped) <= bound + noise).all()
    # And errors of both signs: what is lost of an element is nothing beside the rest.
    assert np.abs(dropped).max() < 0.01 * np.abs(update).max()
    assert np.abs(dropped).max() > 0


def _device(state: DeviceState) -> str:
    from flwr_caesar.sync.protocol import device_id

    return device_id(state.token)


def test_what_is_added_in_place_is_what_is_added_whole() -> None:
    rng = np.random.default_rng(0)
    update = rng.normal(size=(300, 333)).astype(np.float32)
    update[0, 0] = 3e38
    residual = {"w": rng.normal(size=update.shape).astype(np.float32), "b": update[1]}
    residual["w"][0, 0] = 3e4
    short = ShortResidual.of(residual, least_bytes=0)
    assert isinstance(short, ShortResidual)
    layout = Layout.of({"w": update})
    expected = add_residual({"w": update}, short, layout, overwrite=False)["w"]
    found = add_residual({"w": update.copy()}, short, layout, overwrite=True)["w"]
    assert (found == expected).all()
    assert (found == update + short["w"]).all()
    for odd in (update[:10], update.astype(np.float64), np.asfortranarray(update)):
        same_layout = Layout.of({"w": odd})
        if odd.shape != update.shape:
            with pytest.raises(CodecError, match="earlier rounds"):
                add_residual({"w": odd.copy()}, short, same_layout, overwrite=True)
        else:
            total = add_residual({"w": odd.copy()}, short, same_layout, overwrite=True)
            assert (total["w"] == odd + short["w"]).all()
    assert not short.add_to(update[1].copy(), "b")  # small: kept as it is
