"""The conformance suite: what every codec must do, ours or a third party's.

``check_codec(MyCodec())`` in a test is all it takes; see docs/codecs.md. The checks are
plain assertions, independent of any test framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np

from ..contract.base import Codec
from ..contract.errors import CodecError, StateMismatchError
from ..contract.frame import inspect_frame, write_frame
from ..contract.layout import DTYPE_CODES, Array, Arrays, Layout, to_dtype
from ..contract.registry import get_codec
from ..contract.state import CodecState
from .mutate import mutate

SHAPES: Sequence[tuple[int, ...]] = ((), (0,), (1,), (3, 0, 2), (5, 3), (41, 31))


def sample_arrays(rng: np.random.Generator) -> dict[str, Array]:
    """Return tensors of every dtype and of awkward shapes, and one ordinary layer.

    Parameters
    ----------
    rng : Generator
        Source of the values; floating-point ones are normal with deviation 0.05.
    """
    arrays: dict[str, Array] = {}
    for dtype in DTYPE_CODES:
        for shape in SHAPES:
            arrays[f"{dtype} {shape}"] = _values(rng, dtype, shape)
    arrays["ключ.weight"] = _values(rng, "float32", (16, 8, 3, 3))
    return arrays


def _values(
    rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if np.dtype(to_dtype(dtype)).kind in "biu":
        return np.asarray(rng.integers(0, 2 if dtype == "bool" else 100, shape)).astype(
            dtype
        )
    values = np.asarray(rng.normal(0, 0.05, shape))
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def check_codec(
    codec: Codec,
    *,
    sample: Callable[[np.random.Generator], Mapping[str, Array]] = sample_arrays,
    seed: int = 0,
    frames: int = 500,
) -> None:
    """Run every check of this module.

    Parameters
    ----------
    codec : Codec
        The codec, with parameters that suit the sample.
    sample : callable
        Makes one round's arrays, always of one layout, from a random generator.
    seed : int
        Seed of the sample and the mutations.
    frames : int
        Hostile frames to try.

    Raises
    ------
    AssertionError
        If the codec breaks a rule; the message says which.
    """
    rounds = [dict(sample(np.random.default_rng(seed + i))) for i in range(4)]
    check_identity(codec)
    check_round_trip(codec, rounds[0])
    check_lock_step(codec, rounds)
    check_error_bound(codec, rounds)
    check_purity(codec, rounds)
    check_refusals(codec, rounds[0])
    check_hostile_frames(codec, rounds, seed=seed, frames=frames)


def check_identity(codec: Codec) -> None:
    """Check that the configuration is JSON and, by the registry, gives the codec."""
    config = codec.config
    assert config["id"] == codec.id, "config['id'] must be the codec's id"
    again = json.loads(json.dumps(config, allow_nan=False))
    rebuilt = get_codec(again)
    assert rebuilt == codec, f"get_codec({again}) gives another codec: {rebuilt}"
    assert hash(codec) == hash(rebuilt), "a codec must be a frozen dataclass"


def check_round_trip(codec: Codec, arrays: Arrays) -> None:
    """Check names, order, dtypes, shapes, writability, and tensors that must be exact.

    Tensors that are not floating point, and floating-point ones of fewer elements than
    the codec's `exact_below`, come back bit for bit; no arrays at all is also a model.
    """
    for model in (dict(arrays), {}, dict(list(arrays.items())[:1])):
        frame, _ = codec.encode(model)
        decoded, _ = codec.decode(frame)
        assert list(decoded) == list(model), "names must come back in layout order"
        for spec in Layout.of(model).tensors:
            got, name = decoded[spec.name], spec.name
            assert got.dtype == to_dtype(spec.dtype), f"{name!r} is now {got.dtype}"
            assert got.shape == spec.shape, f"{name!r} has shape {got.shape}"
            assert got.flags.writeable, f"{name!r} is read-only"
            assert got.dtype.kind in "biu" or np.isfinite(got).all(), f"{name!r}"
            if not spec.is_float or spec.size < getattr(codec, "exact_below", 0):
                same = _bytes(got) == _bytes(model[name])
                assert same, f"{name!r} must be bit-exact"


def check_purity(codec: Codec, rounds: Sequence[Arrays]) -> None:
    """Check that equal calls give equal results and nothing given is changed.

    `Codec.encode_decoded` is `encode` and then `decode`.
    """
    state = receiver = None
    for arrays in rounds:
        model = {name: _frozen(array) for name, array in arrays.items()}
        held = [_contents(s) for s in (state, receiver)]
        frame, after = codec.encode(model, state)
        again, _ = codec.encode(model, state)
        assert frame == again, "encoding twice must give the same frame"
        told = codec.encode_decoded(model, state)
        decoded, decoder_after = codec.decode(frame, receiver)
        _check_told(told, frame, decoded)
        first = {name: _bytes(array) for name, array in decoded.items()}
        for array in decoded.values():
            array[...] = 0
        repeated, repeated_after = codec.decode(frame, receiver)
        for name, array in repeated.items():
            assert _bytes(array) == first[name], f"{name!r} decodes differently"
        same = _contents(repeated_after) == _contents(decoder_after)
        assert same, "decoded arrays must not share memory with the state"
        assert held == [_contents(s) for s in (state, receiver)], "a state changed"
        for name, array in arrays.items():
            assert _bytes(array) == _bytes(model[name]), f"{name!r} was changed"
        state, receiver = after, decoder_after


def _check_told(
    told: tuple[bytes, Arrays, CodecState], frame: bytes, decoded: Arrays
) -> None:
    known, arrays, _ = told
    assert known == frame, "encode_decoded must write the frame that encode does"
    assert list(arrays) == list(decoded), "encode_decoded must keep names and order"
    for name, array in decoded.items():
        own = arrays[name]
        assert (own.dtype, own.shape) == (array.dtype, array.shape), f"{name!r}"
        same = _bytes(own) == _bytes(array)
        assert same, f"{name!r} decodes to other values than encode_decoded told"


def check_lock_step(codec: Codec, rounds: Sequence[Arrays]) -> None:
    """Check that both sides hold one state, and a missed frame is noticed."""
    sender = receiver = missed = None
    for i, arrays in enumerate(rounds):
        frame, sender = codec.encode(arrays, sender)
        info = inspect_frame(frame)
        assert ("TABL" in info.sections) == (i == 0), "only the first frame has a table"
        if i:
            _must_mismatch(codec, frame, None)
        if info.state_version:
            _must_mismatch(codec, frame, missed)
            _must_mismatch(codec, frame, CodecState(sender.layout))
        missed = receiver
        _, receiver = codec.decode(frame, receiver)
        assert receiver.layout == sender.layout, "the sides hold different layouts"
        assert receiver.version == sender.version, "the sides count differently"
        assert receiver.digest == sender.digest, "the sides' memories differ"


def check_error_bound(codec: Codec, rounds: Sequence[Arrays]) -> None:
    """Check that every element of every round is within the bound, if one is stated."""
    sender = receiver = None
    for i, arrays in enumerate(rounds):
        bounds = codec.error_bound(arrays)
        if bounds is None:
            return
        assert bounds.keys() == arrays.keys(), "a bound is needed for every tensor"
        frame, sender = codec.encode(arrays, sender)
        decoded, receiver = codec.decode(frame, receiver)
        for name, array in arrays.items():
            error = np.abs(array.astype(np.float64) - decoded[name].astype(np.float64))
            inside = (error <= np.broadcast_to(bounds[name], error.shape)).all()
            assert inside, f"{name!r} errs by more than its bound in round {i}"


def check_refusals(codec: Codec, arrays: Arrays) -> None:
    """Check that NaN, infinity, other dtypes and foreign frames are refused."""
    for value in (np.nan, np.inf, -np.inf):
        for size in (3, 5000):
            bad = np.zeros(size, np.float32)
            bad[-1] = value
            _must_refuse(codec, {**arrays, "culprit": bad})
    for dtype in (np.complex64, object, np.str_):
        _must_refuse(codec, {**arrays, "culprit": np.zeros(3, dtype)})
    foreign = write_frame(
        config={"id": codec.id, "no such parameter": 1},
        layout_digest=bytes(16),
        sections=[],
    )
    try:
        codec.decode(foreign)
    except CodecError:
        pass
    else:
        raise AssertionError("a frame of another configuration must be refused")


def check_hostile_frames(
    codec: Codec, rounds: Sequence[Arrays], *, seed: int = 0, frames: int = 500
) -> None:
    """Check that mutated frames decode to the expected layout or raise `CodecError`."""
    rng = np.random.default_rng(seed)
    layout = Layout.of(rounds[0])
    good: list[tuple[bytes, CodecState | None]] = []
    sender = receiver = None
    for arrays in rounds:
        frame, sender = codec.encode(arrays, sender)
        good.append((frame, receiver))
        _, receiver = codec.decode(frame, receiver)
    for _ in range(frames):
        frame, state = good[int(rng.integers(len(good)))]
        if state is None and rng.random() < 0.8:
            state = CodecState(layout)
        kind, hostile = mutate(frame, rng)
        try:
            decoded, _ = codec.decode(hostile, state, max_bytes=2 * layout.nbytes)
        except CodecError:
            continue
        except Exception as err:
            raise AssertionError(f"{kind}: {err!r} instead of a CodecError") from err
        if state is not None:
            same = Layout.of(decoded).same_shapes(layout)
            assert same, f"{kind}: decoded to other tensors than expected"


def _must_mismatch(codec: Codec, frame: bytes, state: CodecState | None) -> None:
    try:
        codec.decode(frame, state)
    except StateMismatchError:
        return
    raise AssertionError("a frame that needs another state must be refused")


def _must_refuse(codec: Codec, arrays: Arrays) -> None:
    try:
        codec.encode(arrays)
    except CodecError as err:
        message = str(err)
    else:
        message = "nothing was raised"
    value = arrays["culprit"][-1]
    assert "'culprit'" in message, f"encode must refuse {value!r} by name: {message}"


def _frozen(array: Array) -> Array:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def _bytes(array: Array) -> bytes:
    return array.astype(to_dtype(array.dtype.name), copy=False).tobytes()


def _contents(state: CodecState | None) -> object:
    if state is None:
        return None
    memory = {name: array.tobytes() for name, array in state.arrays.items()}
    return state.layout, state.version, memory
