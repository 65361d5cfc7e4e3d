"""How many models the server holds at a time, in allocated bytes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod, shared_downloads
from flwr_caesar.codec import CodecError
from flwr_caesar.codec.published.lattice_model import encode_model, publish_model
from flwr_caesar.codec.published.model_steps import next_exponents
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar
from flwr_caesar.strategies.mean import Combined, RunningMean
from flwr_caesar.transport import arrays_to_record, record_to_arrays

N = 1_000_000


def models_of(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what work returns, and the most models of N float32 that it allocated."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        found = work()
        return found, (tracemalloc.get_traced_memory()[1] - before) / (4 * N)
    finally:
        tracemalloc.stop()


def weights(seed: int, scale: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(0, scale, (1000, 1000)).astype(np.float32)}


def noisy_app() -> ClientApp:
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        rng = np.random.default_rng(context.node_id)
        arrays = record_to_arrays(msg.content["arrays"])
        moved = {
            name: array + rng.normal(0, 1e-3, array.shape).astype(np.float32)
            for name, array in arrays.items()
        }
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": arrays_to_record(moved), "metrics": metrics})
        return Message(content, reply_to=msg)

    return app


def test_a_point_is_made_and_kept_in_little_more_than_its_integers():
    model = weights(0, 0.05)
    first, peak = models_of(lambda: publish_model(model, None, -10))
    assert peak < 2.2  # in 32 bits, then in 16
    assert first.nbytes == 2 * N
    model["w"] += weights(1, 1e-3)["w"]
    _, peak = models_of(lambda: next_exponents(model, first, 1.5))
    assert peak < 0.6
    point, peak = models_of(lambda: publish_model(model, first, -9))
    assert peak < 2.2
    _, peak = models_of(lambda: encode_model(point, first))
    assert peak < 3


def test_a_mean_is_one_model_and_becomes_the_record():
    mean, base = RunningMean(), weights(0, 1)
    update = {f"{i}": np.full(N // 10, 1, np.float32) for i in range(10)}
    base = {name: np.zeros_like(array) for name, array in update.items()}
    _, peak = models_of(lambda: mean.add(update, base, 2.0))
    assert peak < 0.5
    combined, peak = models_of(lambda: Combined.of(mean))
    assert peak < 1.5
    assert combined.weight == 2
    assert all((a == 1).all() for a in record_to_arrays(combined.record).values())


def test_a_view_is_in_the_memory_of_its_record():
    arrays = {
        "w": np.arange(12, dtype=np.float32).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "brain": np.ones(5, ml_dtypes.bfloat16),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 2), np.float16),
        "mask": np.array([True, False]),
    }
    record = arrays_to_record(arrays)
    views = record_to_arrays(record)
    assert list(views) == list(arrays)
    for name, view in views.items():
        assert view.dtype == arrays[name].dtype
        assert view.shape == arrays[name].shape
        assert view.tobytes() == arrays[name].tobytes()
        if view.size:
            data = np.frombuffer(record[name].data, np.uint8)
            assert np.shares_memory(view, data)
            assert not view.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (2,), "numpy.ndarray", b"no array"),
        Array("float32", (2,), "flwr_caesar.frame", b"CSAR"),
        Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00\x04\x00{1:2"),
    ],
)
def test_what_is_no_plain_array_is_refused_with_its_name(array):
    with pytest.raises(CodecError, match="'odd'"):
        record_to_arrays(ArrayRecord({"odd": array}))


def test_a_view_of_less_than_it_says_is_refused():
    whole = Array(np.arange(100, dtype=np.float32))
    short = Array(whole.dtype, whole.shape, whole.stype, whole.data[:-4])
    with pytest.raises(CodecError, match="'odd'"):
        record_to_arrays(ArrayRecord({"odd": short}))


def test_a_point_s_arrays_are_made_when_they_are_read():
    model = {name: weights(i, 0.05)["w"] for i, name in enumerate("abcd")}
    model["steps"] = np.array([3, 4])
    point = publish_model(model, None, -10)
    found, peak = models_of(lambda: {n: a.sum() for n, a in point.on_demand().items()})
    assert peak < 2.2  # one as it is given, and the next
    assert list(found) == list(model)
    arrays = point.arrays()
    assert all((point.on_demand()[n] == a).all() for n, a in arrays.items())
    point.on_demand()["steps"][0] = 5
    assert point.arrays()["steps"][0] == 3


def test_between_rounds_a_server_holds_a_model_and_what_it_published(
    tmp_path, monkeypatch
):
    """Beside the model that the caller holds."""
    monkeypatch.setattr(shared_downloads, "MOST_BYTES", 0)  # of devices, as below
    live, nbytes = [], 4 * 4 * 100 * 1000

    def look(done, arrays):
        gc.collect()  # of devices, which are in this process
        live.append((tracemalloc.get_traced_memory()[0] - before) / nbytes)

    def run(name, rows):
        model = arrays_to_record(
            {f"{i}": weights(i, 0.05)["w"][:rows] for i in range(4)}
        )
        grid = InlineGrid(noisy_app(), 2)
        for node, context in grid.contexts.items():
            context.node_config["state-dir"] = str(tmp_path / name / str(node))
        strategy = Caesar(FedAvg(fraction_evaluate=0.0))
        strategy.start(grid, model, num_rounds=3, evaluate_fn=look)

    tracemalloc.start()
    try:
        before = 0
        run("imports", 2)
        live.clear()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        run("measured", 100)
    finally:
        tracemalloc.stop()
    for rounds, held in enumerate(live[1:], 1):
        assert held < 2 + 0.5 * (1 + rounds) + 0.3
