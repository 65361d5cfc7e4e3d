"""Laws that every codec of the library keeps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    ErrorFeedback,
    Layout,
    get_codec,
    inspect_frame,
    list_codecs,
)

from .library import CONFIGS, model_of_everything, name_of, reseal, small, small_model

every_codec = pytest.mark.parametrize("config", CONFIGS, ids=name_of)

BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": "cast", "dtype": "float8"}, "dtype"),
    ({"id": "ternary", "density": 0}, "density"),
    ({"id": "ternary", "density": float("nan")}, "density"),
    ({"id": "qsgd", "levels": 0}, "levels"),
    ({"id": "qsgd", "levels": 65537}, "levels"),
    ({"id": "qsgd", "density": 0.0}, "density"),
    ({"id": "qsgd", "bucket": -1}, "bucket"),
    ({"id": "qsgd", "bucket": 0.5}, "bucket"),
    ({"id": "prune", "bits": 9}, "bits"),
    ({"id": "prune", "bits": 0}, "bits"),
    ({"id": "prune", "bits": 4, "levels": "log"}, "levels"),
    ({"id": "qsgd", "levels": 1.5}, "levels"),
    ({"id": "qsgd", "norm": "l1"}, "norm"),
    ({"id": "qsgd", "seed": -1}, "seed"),
    ({"id": "prune", "prune_rate": 1.01}, "prune_rate"),
    ({"id": "prune", "exclude_1d": "yes"}, "exclude_1d"),
    ({"id": "caesar_model", "drop_fraction": -0.1}, "drop_fraction"),
    ({"id": "rotated", "bits": 5}, "bits"),
    ({"id": "rotated", "bits": 2.5}, "bits"),
    ({"id": "rotated", "scale": "mean"}, "scale"),
    ({"id": "rotated", "seed": 1 << 63}, "seed"),
    ({"id": "quantized", "bits": 1.9}, "bits"),
    ({"id": "quantized", "density": 1.1}, "density"),
    ({"id": "quantized", "levels": "cubic"}, "levels"),
    *(
        ({"id": codec, "exact_below": value}, "exact_below")
        for codec in ("cast", "signs", "rotated", "prune", "topk")
        for value in (-1, 1.5)
    ),
]


@pytest.mark.parametrize(("config", "parameter"), BAD, ids=str)
def test_a_bad_parameter_is_named(config: dict[str, Any], parameter: str) -> None:
    with pytest.raises(CodecError, match=parameter):
        get_codec(config)


def test_every_codec_is_listed_and_tested() -> None:
    assert {config["id"] for config in CONFIGS} <= set(list_codecs())


@every_codec
def test_the_config_is_the_identity(config: dict[str, Any]) -> None:
    codec = get_codec(config)
    assert get_codec(json.loads(json.dumps(codec.config))) == codec
    frame, _ = codec.encode(small_model())
    assert dict(inspect_frame(frame).config) == codec.config


@every_codec
def test_every_dtype_and_shape_comes_back(config: dict[str, Any]) -> None:
    model = model_of_everything()
    codec = small(config)
    decoded, _ = codec.decode(codec.encode(model)[0])
    assert list(decoded) == list(model)
    for name, array in decoded.items():
        assert (array.dtype, array.shape) == (model[name].dtype, model[name].shape)
        floating = array.dtype.kind not in "biu"
        if not floating or (array.size < 16 and config["id"] != "prune"):
            assert array.tobytes() == model[name].tobytes(), name


@every_codec
def test_an_empty_model_and_an_all_zero_model(config: dict[str, Any]) -> None:
    codec = small(config)
    assert codec.decode(codec.encode({})[0])[0] == {}
    zeros = {"w": np.zeros((9, 9), np.float32), "v": -np.zeros((9, 9), np.float32)}
    decoded, _ = codec.decode(codec.encode(zeros)[0])
    assert all((array == 0).all() for array in decoded.values())


@every_codec
def test_encoding_is_pure(config: dict[str, Any]) -> None:
    model = small_model()
    before = {name: array.copy() for name, array in model.items()}
    codec = small(config)
    frame, state = codec.encode(model)
    assert codec.encode(model)[0] == frame
    for name, array in model.items():
        assert array.tobytes() == before[name].tobytes()
    decoded, _ = codec.decode(frame)
    for array in decoded.values():
        array[...] = 0
    assert codec.encode(model, state)[0] == codec.encode(model, state)[0]


@every_codec
def test_a_second_frame_needs_no_table(config: dict[str, Any]) -> None:
    codec = small(config)
    first, state = codec.encode(small_model(0))
    _, seen = codec.decode(first)
    second, _ = codec.encode(small_model(1), state)
    assert "TABL" not in inspect_frame(second).sections
    decoded, _ = codec.decode(second, seen)
    if seen.arrays:  # a codec with a memory sends another frame than at first
        return
    alone, _ = codec.decode(codec.encode(small_model(1))[0])
    for name, array in decoded.items():
        np.testing.assert_array_equal(array, alone[name])


@every_codec
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_element_is_refused_by_name(
    config: dict[str, Any], value: float
) -> None:
    model = small_model()
    model["fc.weight"][3, 3] = value
    with pytest.raises(CodecError, match=r"fc\.weight"):
        small(config).encode(model)


@every_codec
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("extreme", ["largest", "smallest"])
def test_extreme_magnitudes_are_coded_or_refused(
    config: dict[str, Any], dtype: str, extreme: str
) -> None:
    info = np.finfo(dtype)
    value = info.max if extreme == "largest" else info.smallest_subnormal
    x = np.random.default_rng(0).choice([-value, value], (20, 20)).astype(dtype)
    codec = small(config)
    try:
        frame, _ = codec.encode({"x": x})
    except CodecError as err:
        refusal = str(err)
    else:
        refusal = ""
        decoded, _ = codec.decode(frame)
        assert np.isfinite(decoded["x"]).all()
    assert not refusal or (extreme == "largest" and "exceeds" in refusal)


CONTRACTIONS = [
    config
    for config in CONFIGS
    if config["id"] != "qsgd"
    and "unbiased" not in config.values()
    and config.get("prune_rate") != 1.0
]


@pytest.mark.parametrize("config", CONTRACTIONS, ids=name_of)
def test_error_feedback_conserves_and_stays_bounded(config: dict[str, Any]) -> None:
    feedback = ErrorFeedback(small(config))
    rng = np.random.default_rng(5)
    steady = rng.uniform(-1, 1, (40, 40)).astype(np.float32)
    state = seen = None
    total_in = np.zeros((40, 40))
    total_out = np.zeros((40, 40))
    early = 0.0
    for step in range(120):
        x = steady + rng.normal(0, 0.5, steady.shape).astype(np.float32)
        frame, state = feedback.encode({"w": x}, state)
        decoded, seen = feedback.decode(frame, seen)
        total_in += x
        total_out += decoded["w"]
        residual = float(np.linalg.norm(state.private["w"]))
        if step < 60:
            early = max(early, residual)
    np.testing.assert_allclose(
        total_out + state.private["w"],
        total_in,
        rtol=0,
        atol=1e-6 * float(np.abs(total_in).max()),
    )
    assert residual <= 1.5 * early
    assert np.linalg.norm(total_out - total_in) < 0.25 * np.linalg.norm(total_in)


@every_codec
def test_one_frame_contracts(config: dict[str, Any]) -> None:
    if config not in CONTRACTIONS:
        pytest.skip("an unbiased or an all-pruning codec need not contract")
    x = np.random.default_rng(1).standard_normal((60, 60)).astype(np.float32)
    decoded, _ = small(config).decode(small(config).encode({"x": x})[0])
    assert np.linalg.norm(x - decoded["x"]) < np.linalg.norm(x)


@every_codec
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_a_mutated_frame_raises_only_codec_errors(
    config: dict[str, Any], data: st.DataObject
) -> None:
    codec = small(config)
    model = small_model()
    frame = bytearray(codec.encode(model)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 5))
        frame[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 8))
    if cut:
        del frame[-4 - cut : -4]
    expected = CodecState(Layout.of(model))
    try:
        decoded, _ = codec.decode(reseal(frame), expected)
    except CodecError:
        return
    for name, array in decoded.items():
        assert array.shape == model[name].shape
        assert array.dtype.kind in "biu" or np.isfinite(array).all()
