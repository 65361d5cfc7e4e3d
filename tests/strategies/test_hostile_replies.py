"""A bad reply costs itself: it is dropped with its reason and the round goes on."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import FedAvg, FedMedian, Strategy

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecError, get_codec, inspect_frame
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies import (
    CompressedStrategy,
    MagnitudePruning,
    TopK,
    TrainingFailedError,
    Uncompressed,
)
from flwr_caesar.strategies.charge import Work
from flwr_caesar.strategies.frame_messages import upload_key
from flwr_caesar.strategies.phase import Phase, Request
from flwr_caesar.sync.wire import sealed
from flwr_caesar.transport import (
    NOTE_KEY,
    frame_to_record,
    record_to_frame,
    require_note,
)

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid, Tamper
from .replies import claim, lose_note, put_frame, put_note

VICTIM = 3


def reframe(change: Callable[[bytes], bytes]) -> Callable[[Message], None]:
    def tamper(reply: Message) -> None:
        put_frame(reply, change(record_to_frame(reply.content["arrays"])))

    return tamper


def set_metrics(**metrics: float | list[float]) -> Callable[[Message], None]:
    def tamper(reply: Message) -> None:
        named = {key.replace("_", "-"): value for key, value in metrics.items()}
        reply.content["metrics"] = MetricRecord(named)

    return tamper


def set_record(key: str, record: object) -> Callable[[Message], None]:
    def tamper(reply: Message) -> None:
        reply.content[key] = record

    return tamper


def drop_record(key: str) -> Callable[[Message], None]:
    return lambda reply: reply.content.__delitem__(key)


def drop_frame(reply: Message) -> None:
    said = require_note(reply.content)
    del reply.content["arrays"]
    put_note(reply, said)


def replace_frame(codec: dict | str, arrays: dict) -> Callable[[Message], None]:
    """Send another frame that claims the same history and version."""

    def tamper(reply: Message) -> None:
        info = inspect_frame(record_to_frame(reply.content["arrays"]))
        frame, _ = get_codec(codec).encode(arrays)
        stamped = stamp(frame, lineage=info.lineage, base_version=info.base_version)
        put_frame(reply, stamped)

    return tamper


def note(data: bytes) -> Callable[[Message], None]:
    return lambda reply: put_note(reply, data)


foreign_frame = replace_frame(
    "dense", {"weight": np.zeros((1 << 12, 1 << 12), np.float32)}
)
wrong_codec = replace_frame(
    {"id": "topk", "density": 0.5}, {"weight": np.ones((64, 48), np.float32)}
)


# 2 kB that hold 64 MB: more than the 16 MB that an app may add to so small a model.
bomb = frame_to_record(
    get_codec("dense").encode({"more": np.zeros(1 << 24, np.float32)})[0]
)


TAMPERING = {
    "bomb beside the upload": (set_record("more", bomb), "frame claims 67108864 bytes"),
    "truncated": (reframe(lambda f: f[:-40]), "truncated"),
    "empty": (reframe(lambda f: b""), "not a frame"),
    "flipped": (reframe(lambda f: f[:200] + b"\xff\xff" + f[202:]), "corrupt"),
    "version": (reframe(lambda f: f[:4] + b"\x63" + f[5:]), "frame format 99"),
    "other tensors": (foreign_frame, "claims"),
    "other codec": (wrong_codec, "frame of codec"),
    "plain arrays": (set_record("arrays", initial_model()), "compression_mod"),
    "other history": (
        reframe(lambda f: stamp(f, lineage=7, base_version=0)),
        "another history",
    ),
    "no arrays": (drop_record("arrays"), "without compression_mod"),
    "no frame": (drop_frame, "no frame"),
    "no note": (lose_note, "without compression_mod"),
    "too long": (lambda reply: claim(reply, seconds=2e7), "seconds"),
    "unknown claim": (lambda reply: claim(reply, speed=7), "unknown fields"),
    "no timing": (note(sealed(b"\1" + bytes(24))), "truncated"),
    "other header": (note(bytes(80)), "damaged"),
    "no header": (set_record(NOTE_KEY, ConfigRecord({"": 2})), "no header"),
    "other protocol": (
        set_record("flwr-caesar", ConfigRecord({"protocol": 1})),
        "protocol 1",
    ),
    "no metrics": (drop_record("metrics"), "0 MetricRecords"),
    "no weight": (set_metrics(loss=1.0), "num-examples"),
    "negative weight": (set_metrics(num_examples=-1.0, loss=1.0), "not a number"),
    "NaN weight": (set_metrics(num_examples=float("nan"), loss=1.0), "not a number"),
    "list weight": (set_metrics(num_examples=[1.0], loss=1.0), "not a number"),
}


def on_victim(tamper: Callable[[Message], None]) -> Tamper:
    def apply(reply: Message, node: int) -> Message:
        if node == VICTIM and "arrays" in reply.content:
            tamper(reply)
        return reply

    return apply


def run(
    strategy: Strategy, tamper: Tamper | None, **kwargs: object
) -> tuple[ArrayRecord | None, list[RoundRecord]]:
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod], **kwargs), 5, tamper=tamper)
    result = strategy.start(grid, initial_model(), num_rounds=2)
    return result.arrays, strategy.history


@pytest.mark.parametrize("inner", [FedAvg, FedMedian])
@pytest.mark.parametrize("name", TAMPERING)
def test_a_malformed_reply_is_dropped_with_its_reason(name: str, inner: type) -> None:
    tamper, reason = TAMPERING[name]
    arrays, history = run(CompressedStrategy(inner()), on_victim(tamper))
    trained = [record for record in history if record.phase == "train"]
    assert len(trained) == 2
    for record in trained:
        assert set(record.dropped) == {VICTIM}
        assert reason in record.dropped[VICTIM]
    assert arrays is not None


def test_a_part_of_a_model_names_no_more_tensors_than_the_model() -> None:
    """Some kB of a table of 20,000 empty tensors take a third of a second to read."""
    many = {f"{i:05}": np.zeros(0, np.float32) for i in range(20_000)}
    codec = {"id": "prune", "prune_rate": 0.5, "exclude_1d": False}
    strategy = MagnitudePruning(FedAvg(), exclude_1d=False)
    _, history = run(strategy, on_victim(replace_frame(codec, many)))
    trained = [record for record in history if record.phase == "train"]
    for record in trained:
        assert "names more tensors than the model" in record.dropped[VICTIM]


def test_the_others_count_as_if_the_bad_one_had_not_been_asked() -> None:
    tamper, _ = TAMPERING["truncated"]
    arrays, _ = run(CompressedStrategy(FedAvg()), on_victim(tamper))
    base = {k: v.numpy() for k, v in initial_model().items()}
    others = [n for n in range(1, 6) if n != VICTIM]
    for server_round in (1, 2):
        moved = {n: drift(base, n, server_round) for n in others}
        total = sum(others)
        base = {
            k: sum(n * moved[n][k].astype(np.float64) for n in others) / total
            for k in base
        }
    np.testing.assert_allclose(arrays["weight"].numpy(), base["weight"], atol=1e-5)


def test_non_finite_arrays_never_leave_the_device() -> None:
    def poison(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if node == VICTIM:
            out["weight"][0, 0] = np.nan
        return out

    for strategy in (TopK(FedAvg()), Uncompressed(FedAvg())):
        _, history = run(strategy, None, step=poison)
        for record in history:
            if record.phase == "train":
                assert set(record.dropped) == {VICTIM}
                assert "'weight' holds NaN" in record.dropped[VICTIM]


def test_an_error_reply_is_recorded_with_its_text() -> None:
    def fail(arrays, node, server_round):
        if node == VICTIM:
            raise RuntimeError("out of memory")
        return drift(arrays, node, server_round)

    _, history = run(TopK(FedAvg()), None, step=fail)
    assert "out of memory" in history[0].dropped[VICTIM]


def test_a_silent_device_is_recorded_and_the_round_closes() -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    grid = LocalGrid(
        numpy_app(mods=[compression_mod]),
        4,
        tamper=lambda reply, node: None if node == 2 else reply,
    )
    strategy.start(grid, initial_model(), num_rounds=1, timeout=0.2)
    assert strategy.history[0].dropped == {2: "no reply before the round closed"}


def test_a_round_without_valid_replies_keeps_the_model() -> None:
    def broken(reply: Message, node: int) -> Message:
        return Message(Error(code=2, reason="broken"), reply_to=reply)

    for inner in (FedAvg(), FedMedian()):
        strategy = TopK(inner, max_failed_rounds=0)
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 3, tamper=broken)
        result = strategy.start(grid, initial_model(), num_rounds=2)
        assert len(strategy.history[0].dropped) == 3
        np.testing.assert_array_equal(
            result.arrays["weight"].numpy(), initial_model()["weight"].numpy()
        )


def test_odd_metrics_do_not_stop_the_round() -> None:
    """Flower alone ends the run when metric keys or list lengths differ."""
    odd = set_metrics(num_examples=1.0, other=2.0)
    strategy = CompressedStrategy(FedAvg())
    arrays, history = run(strategy, on_victim(odd))
    assert arrays is not None
    assert not history[0].dropped
    strategy = CompressedStrategy(FedMedian())
    arrays, history = run(strategy, on_victim(odd))
    assert arrays is not None
    assert "differ from the others'" in history[0].dropped[VICTIM]


def test_finite_updates_have_a_finite_mean() -> None:
    def huge(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        out["weight"] = np.full((64, 48), 3e38, np.float32)
        return out

    arrays, history = run(CompressedStrategy(FedAvg()), None, step=huge)
    np.testing.assert_allclose(arrays["weight"].numpy(), 3e38, rtol=1e-6)
    assert not any(record.dropped for record in history)


def test_a_device_without_the_mod_is_told_what_to_add() -> None:
    grid = LocalGrid(numpy_app(), 3)
    strategy = TopK(FedAvg())
    with pytest.raises(TrainingFailedError, match=r"mods=\[compression_mod\]"):
        strategy.start(grid, initial_model(), num_rounds=1)
    assert len(strategy.history[0].dropped) == 3


def test_the_mod_passes_plain_messages_untouched() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)
    result = FedAvg().start(grid, initial_model(), num_rounds=1)
    assert result.arrays is not None


def test_an_app_that_returns_other_tensors_is_told_so() -> None:
    def grow(arrays, node, server_round):
        return {**arrays, "extra": np.zeros(3, np.float32)}

    with pytest.raises(TrainingFailedError, match="'extra' is not in the model"):
        run(TopK(FedAvg()), None, step=grow)


def test_a_reply_with_an_unknown_record_key_is_dropped() -> None:
    def rename(reply: Message, node: int) -> Message:
        if "arrays" in reply.content:
            record = reply.content["arrays"]
            reply.content = RecordDict(
                {k: v for k, v in reply.content.items() if k != "arrays"}
            )
            reply.content["renamed"] = record
        return reply

    arrays, history = run(CompressedStrategy(FedAvg()), rename)
    assert arrays is not None
    assert not history[0].dropped


def test_claimed_array_sizes_are_not_believed() -> None:
    def claim(reply: Message) -> None:
        reply.content["arrays"] = ArrayRecord(
            {"frame": Array("uint8", (1 << 40,), "flwr_caesar.frame", b"CSAR")}
        )

    _, history = run(CompressedStrategy(FedAvg()), on_victim(claim))
    assert "without compression_mod" in history[0].dropped[VICTIM]

    def claim_more(reply: Message) -> None:
        array = reply.content["arrays"]["frame"]
        more = Array("uint8", (1 << 40,), array.stype, array.data[:-1])
        reply.content["arrays"] = ArrayRecord({"frame": more})

    _, history = run(CompressedStrategy(FedAvg()), on_victim(claim_more))
    assert "truncated" in history[0].dropped[VICTIM]


def test_a_quorum_closes_the_round_and_the_rest_is_recorded() -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0), quorum=0.5)
    grid = LocalGrid(
        numpy_app(mods=[compression_mod]),
        4,
        tamper=lambda reply, node: None if node > 2 else reply,
    )
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert set(strategy.history[0].dropped) == {3, 4}
    assert not np.array_equal(
        result.arrays["weight"].numpy(), initial_model()["weight"].numpy()
    )


def test_a_deadline_closes_the_round() -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0), deadline=0.1)
    grid = LocalGrid(
        numpy_app(mods=[compression_mod]),
        3,
        tamper=lambda reply, node: None if node == 1 else reply,
    )
    strategy.start(grid, initial_model(), num_rounds=1)
    assert strategy.history[0].dropped == {1: "no reply before the round closed"}


@pytest.mark.parametrize(("key", "value"), [("deadline", 0), ("quorum", 1.5)])
def test_options_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        TopK(FedAvg(), **{key: value})


def test_which_record_of_a_reply_is_the_upload() -> None:
    """The only one whatever its name, or the one that is named as the model was."""
    phase, request = Phase("train", 1), Request(1, "model", {}, {}, 0, Work())
    arrays = initial_model()

    def key(*names: str) -> str:
        return upload_key(phase, request, RecordDict(dict.fromkeys(names, arrays)))

    assert key() == ""
    assert key("other") == "other"
    assert key("other", "model") == "model"
    with pytest.raises(CodecError, match="2 ArrayRecords, and none is named 'model'"):
        key("other", "another")
