"""CorrelationAware: nothing is lost, memories agree, and clipped stays clipped."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
)

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecState, Layout, update_layout
from flwr_caesar.strategies import (
    CorrelationAware,
    MagnitudePruning,
    TopK,
    TrainingFailedError,
)
from flwr_caesar.strategies.privacy import clip
from flwr_caesar.transport import record_to_arrays, record_to_frame

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid
from .memories import (
    assert_lock_step,
    device_state,
    dropped,
    predicted,
    run_in_lock_step,
)

NORM = 0.5


def floats() -> ArrayRecord:
    """Flower's noise is for floating-point tensors."""
    whole = initial_model()
    return ArrayRecord({name: whole[name] for name in ("weight", "bias")})


@dataclass
class Work:
    """Updates that share a drift of the device's own, and the sum of them."""

    computed: dict[int, np.ndarray] = field(default_factory=dict)

    def __call__(self, arrays, node, server_round):
        drift = np.random.default_rng(node).normal(size=(64, 48))
        noise = np.random.default_rng([node, server_round]).normal(size=(64, 48))
        out = {name: np.array(value) for name, value in arrays.items()}
        out["weight"] = arrays["weight"] + (drift + 0.2 * noise).astype(np.float32)
        update = (out["weight"] - arrays["weight"]).astype(np.float64)
        self.computed[node] = self.computed.get(node, 0.0) + update
        return out


class Losing:
    """Loses the replies of these numbers, counted from 1."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.count = 0

    def __call__(self, reply: Message, node: int) -> Message | None:
        self.count += 1
        return None if self.count in self.numbers else reply


def fedavg(nodes: int, fraction: float = 1.0) -> FedAvg:
    return FedAvg(
        fraction_train=fraction,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=nodes,
    )


def assert_nothing_lost(arrays: ArrayRecord, grid: LocalGrid, work: Work) -> None:
    """Of one device alone: what was applied and is kept is what was computed."""
    applied = arrays["weight"].numpy() - initial_model()["weight"].numpy()
    kept = device_state(grid, 1).residual["weight"]
    assert np.abs(kept).max() > 0.1
    np.testing.assert_allclose(applied + kept, work.computed[1], atol=3e-4)


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
def test_it_learns_what_the_inner_strategy_learns(inner, history: bool) -> None:
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 5)
    strategy = CorrelationAware(inner(), density=1.0, bits=8, history=history)
    result = strategy.start(grid, initial_model(), num_rounds=4)
    assert not any(dropped(strategy))
    plain = inner().start(LocalGrid(numpy_app(), 5), initial_model(), num_rounds=4)
    for name in ("weight", "bias", "half", "steps"):
        mine, meant = result.arrays[name].numpy(), plain.arrays[name].numpy()
        # Adaptive optimisers divide by the size of the update, its error included.
        tolerance = 3e-2 if inner is FedAdam or name == "half" else 3e-3
        np.testing.assert_allclose(mine, meant, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("lost", [(), (2, 3), (1, 4, 5, 9), (10,)])
def test_what_is_left_out_or_lost_comes_later(lost, history: bool) -> None:
    work = Work()
    grid = LocalGrid(
        numpy_app(mods=[compression_mod], step=work), 1, tamper=Losing(*lost)
    )
    strategy = CorrelationAware(fedavg(1), history=history)
    result = strategy.start(grid, initial_model(), num_rounds=11, timeout=0.03)
    assert [bool(d) for d in dropped(strategy)] == [n in lost for n in range(1, 12)]
    if lost != (10,):
        assert_nothing_lost(result.arrays, grid, work)
    first = 1 + (1 in lost)
    arrived = [n for n in range(1, 12) if n not in lost]
    assert predicted(grid) == [history and n > first for n in arrived]


def test_memories_stay_in_step_when_few_take_part_and_replies_are_lost() -> None:
    random.seed(3)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=Work()), 6)
    strategy = CorrelationAware(fedavg(6, 0.5), density=0.01, history=True)
    run_in_lock_step(strategy, grid, 20)


def test_a_restarted_server_goes_on_and_nothing_is_lost(tmp_path: Path) -> None:
    work = Work()
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1)
    for stop in (3, 6):
        strategy = CorrelationAware(fedavg(1), history=True, checkpoint=tmp_path)
        result = strategy.start(grid, initial_model(), num_rounds=stop)
        assert not any(dropped(strategy))
    assert predicted(grid) == [False, *[True] * 5]
    assert_nothing_lost(result.arrays, grid, work)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    def run(folder: Path, *stops: int) -> ArrayRecord:
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
        for stop in stops:
            strategy = CorrelationAware(FedAdam(), checkpoint=folder)
            result = strategy.start(grid, initial_model(), num_rounds=stop)
        return result.arrays

    whole, resumed = run(tmp_path / "whole", 5), run(tmp_path / "parts", 2, 5)
    for name in whole:
        np.testing.assert_array_equal(whole[name].numpy(), resumed[name].numpy())


class Away:
    """The first device is away in some rounds."""

    def __init__(self, *rounds: int) -> None:
        self.rounds = rounds

    def present(self, server_round: int, devices) -> np.ndarray:
        return (np.asarray(devices) != 0) | (server_round not in self.rounds)


@pytest.mark.parametrize(
    ("max_gap", "starts_anew"), [(0, False), (5, False), (4, True)]
)
def test_a_device_that_was_away_too_long_starts_anew(max_gap, starts_anew) -> None:
    work = Work()
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 2)
    strategy = CorrelationAware(
        fedavg(2),
        density=0.01,
        history=True,
        max_gap=max_gap,
        presence=Away(4, 5, 6, 7),
    )
    left: list[np.ndarray] = []
    before: list[np.ndarray] = []

    def look(record) -> None:
        if record.server_round == 3:
            before.append(device_state(grid, 1).residual["weight"])
            before.append(work.computed[1])
        if record.server_round == 8:
            left.append(device_state(grid, 1).residual["weight"])
            left.append(work.computed[1])
            frames = grid.received[-2:]
            assert sum(predicted(grid)[-len(frames) :]) == 2 - starts_anew

    strategy._recorder._sinks = (look,)
    strategy.start(grid, initial_model(), num_rounds=9)
    assert not any(dropped(strategy))
    assert predicted(grid)[-2:] == [True, True]
    assert_lock_step(strategy, grid)
    # With the residual given up, no more is left than what this round computed.
    longest = np.linalg.norm(left[1] - before[1])
    assert (np.linalg.norm(left[0]) <= longest) == starts_anew
    assert np.linalg.norm(before[0]) > longest


class Recording(FedAvg):
    """Keeps the length of each update it is given."""

    lengths: list[float]

    def configure_train(self, server_round, arrays, config, grid):
        self.lengths = getattr(self, "lengths", [])
        self._sent = record_to_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        for reply in replies:
            (record,) = reply.content.array_records.values()
            got = record_to_arrays(record)
            self.lengths.append(length({n: got[n] - self._sent[n] for n in got}))
        return super().aggregate_train(server_round, replies)


def length(update) -> float:
    return float(
        np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in update.values()))
    )


def recording(nodes: int) -> Recording:
    return Recording(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=nodes,
    )


def lengths_on_the_wire(strategy, grid: LocalGrid) -> list[float]:
    layout = update_layout(Layout.of(record_to_arrays(floats())))
    frames = [record_to_frame(content["arrays"]) for _, content in grid.received]
    return [
        length(strategy.method.upload.decode(frame, CodecState(layout))[0])
        for frame in frames
    ]


@pytest.mark.parametrize("density", [0.01, 1.0])
def test_what_devices_clip_stays_clipped_when_replies_are_lost(density) -> None:
    grid = LocalGrid(
        numpy_app(mods=[compression_mod, fixedclipping_mod], step=Work()),
        2,
        tamper=Losing(3, 5, 6, 7),
    )
    inner = recording(2)
    private = DifferentialPrivacyClientSideFixedClipping(inner, 0.0, NORM, 2)
    strategy = CorrelationAware(
        private, density=density, bits=2 if density == 1 else 6, error_feedback=False
    )
    strategy.start(grid, floats(), num_rounds=7, timeout=0.03)
    assert len(inner.lengths) == 10
    assert max(inner.lengths) <= NORM * (1 + 1e-5)
    # On the wire already, but for the rounding of values.
    assert max(lengths_on_the_wire(strategy, grid)) <= NORM * (
        1.3 if density == 1 else 1.01
    )
    for node in (1, 2):
        assert not device_state(grid, node).residual


def test_what_a_device_did_not_clip_is_scaled_down_by_the_server() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=Work()), 2)
    inner = recording(2)
    private = DifferentialPrivacyClientSideFixedClipping(inner, 0.0, NORM, 2)
    strategy = CorrelationAware(private, error_feedback=False)
    strategy.start(grid, floats(), num_rounds=2)
    np.testing.assert_allclose(inner.lengths, [NORM] * 4, rtol=1e-5)


def test_a_residual_from_before_is_given_up_once_updates_are_clipped(tmp_path) -> None:
    grid = LocalGrid(
        numpy_app(mods=[compression_mod], step=Work()), 1, tamper=Losing(4)
    )
    CorrelationAware(fedavg(1), density=0.01, checkpoint=tmp_path).start(
        grid, floats(), num_rounds=4, timeout=0.03
    )
    assert device_state(grid, 1).residual
    grid.app = numpy_app(mods=[compression_mod, fixedclipping_mod], step=Work())
    private = DifferentialPrivacyClientSideFixedClipping(fedavg(1), 0.0, NORM, 1)
    strategy = CorrelationAware(
        private, density=0.01, error_feedback=False, checkpoint=tmp_path
    )
    strategy.start(grid, floats(), num_rounds=6)
    assert not any(dropped(strategy))
    assert not device_state(grid, 1).residual
    assert max(lengths_on_the_wire(strategy, grid)[3:]) <= 1.01 * NORM


def test_adaptive_clipping_on_devices_learns_its_norm() -> None:
    grid = LocalGrid(
        numpy_app(mods=[compression_mod, adaptiveclipping_mod], step=Work()), 2
    )
    inner = recording(2)
    private = DifferentialPrivacyClientSideAdaptiveClipping(inner, 0.0, 2, NORM)
    private.clipped_count_stddev = 0.0
    strategy = CorrelationAware(private, error_feedback=False)
    strategy.start(grid, floats(), num_rounds=3)
    assert not any(dropped(strategy))
    # Flower's norm falls if all are clipped, whatever the paper says of it.
    norms = [NORM * np.exp(-0.2 * 0.5) ** n for n in (0, 0, 1, 1, 2, 2)]
    assert all(a <= b * (1 + 1e-5) for a, b in zip(inner.lengths, norms, strict=True))
    assert private.clipping_norm == pytest.approx(NORM * np.exp(-0.1) ** 3)


@pytest.mark.parametrize("adaptive", [False, True])
def test_clipping_on_the_server_bounds_update_and_residual(adaptive) -> None:
    grid = LocalGrid(
        numpy_app(mods=[compression_mod], step=Work()), 2, tamper=Losing(3)
    )
    inner = recording(2)
    private = (
        DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.0, 2, NORM)
        if adaptive
        else DifferentialPrivacyServerSideFixedClipping(inner, 0.0, NORM, 2)
    )
    if adaptive:
        private.clipped_count_stddev = 0.0
    strategy = CorrelationAware(private, density=0.01)
    result = strategy.start(grid, floats(), num_rounds=5, timeout=0.03)
    assert len(inner.lengths) == 9
    assert max(inner.lengths) <= NORM * (1 + 1e-5)
    assert max(lengths_on_the_wire(strategy, grid)) > 2 * NORM
    moved = result.arrays["weight"].numpy() - floats()["weight"].numpy()
    assert 0.5 * NORM < np.linalg.norm(moved) <= 5 * NORM
    assert device_state(grid, 1).residual


def test_devices_receive_the_noise_and_the_checkpoint_holds_it(tmp_path) -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    private = DifferentialPrivacyServerSideFixedClipping(fedavg(2), 2.0, NORM, 2)
    strategy = CorrelationAware(private, checkpoint=tmp_path)
    np.random.seed(0)
    result = strategy.start(grid, floats(), num_rounds=2)
    assert not any(dropped(strategy))
    moved = result.arrays["weight"].numpy() - floats()["weight"].numpy()
    assert np.std(moved) > 0.5  # 2 rounds of deviation 2 * 0.5 / 2
    resumed = CorrelationAware(private, checkpoint=tmp_path)
    again = resumed.start(grid, floats(), num_rounds=2)
    np.testing.assert_array_equal(
        again.arrays["weight"].numpy(), result.arrays["weight"].numpy()
    )


def test_noise_of_the_device_is_sent_on_with_error_feedback() -> None:
    noise = LocalDpMod(clipping_norm=NORM, sensitivity=0.01, epsilon=1.0, delta=1e-5)
    np.random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod, noise], step=Work()), 2)
    strategy = CorrelationAware(fedavg(2))
    strategy.start(grid, floats(), num_rounds=4)
    assert not any(dropped(strategy))
    assert device_state(grid, 1).residual


@pytest.mark.parametrize("wrapper", [CorrelationAware, TopK])
def test_error_feedback_around_clipping_on_devices_is_refused(wrapper) -> None:
    private = DifferentialPrivacyClientSideFixedClipping(fedavg(1), 1.0, NORM, 1)
    with pytest.raises(ValueError, match="error_feedback=False"):
        wrapper(private)
    wrapper(private, error_feedback=False)


def test_models_instead_of_clipped_updates_are_refused() -> None:
    private = DifferentialPrivacyClientSideAdaptiveClipping(fedavg(1), 0.0, 1)
    with pytest.raises(ValueError, match="clip on the server"):
        MagnitudePruning(private)


@pytest.mark.parametrize(
    "outside",
    [
        DifferentialPrivacyServerSideFixedClipping,
        DifferentialPrivacyClientSideFixedClipping,
    ],
)
def test_privacy_around_compression_is_refused(outside) -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod, fixedclipping_mod]), 1)
    strategy = outside(CorrelationAware(fedavg(1)), 1.0, NORM, 1)
    with pytest.raises(ValueError, match="outermost"):
        strategy.start(grid, floats(), num_rounds=1)


def test_a_device_refuses_to_add_a_residual_to_what_it_clips() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod, fixedclipping_mod]), 1)
    strategy = TopK(fedavg(1))
    config = ConfigRecord({"clipping_norm": NORM})
    with pytest.raises(TrainingFailedError, match="error_feedback=False"):
        strategy.start(grid, floats(), num_rounds=1, train_config=config)


@pytest.mark.parametrize(
    "mod",
    [fixedclipping_mod, LocalDpMod(NORM, 0.01, 1.0, 1e-5)],
)
def test_a_mod_before_compression_sends_nothing(mod) -> None:
    grid = LocalGrid(numpy_app(mods=[mod, compression_mod]), 1)
    strategy = CorrelationAware(fedavg(1), error_feedback=False)
    config = ConfigRecord({"clipping_norm": NORM})
    refused = r"put it first|compression_mod first"
    with pytest.raises(TrainingFailedError, match=refused):
        strategy.start(grid, floats(), num_rounds=2, train_config=config)
    assert dropped(strategy)[0].keys() == {1}


def test_an_accountant_does_not_begin_anew_after_a_checkpoint(tmp_path) -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 1)
    private = DifferentialPrivacyServerSideFixedClipping(fedavg(1), 1.0, NORM, 1)
    CorrelationAware(private, checkpoint=tmp_path).start(grid, floats(), num_rounds=1)
    private.accountant = object()
    with pytest.raises(ValueError, match="accountant"):
        CorrelationAware(private, checkpoint=tmp_path).start(
            grid, floats(), num_rounds=2
        )


def test_clipping_scales_floats_only_and_only_if_too_long() -> None:
    update = {"a": np.full(16, 3.0, np.float32), "n": np.array(7)}
    clipped = clip(update, 6.0)
    np.testing.assert_allclose(clipped["a"], np.full(16, 1.5), rtol=1e-6)
    assert clipped["n"] == 7
    assert clipped["a"].dtype == np.float32
    np.testing.assert_array_equal(clip(update, 12.5)["a"], update["a"])
    assert update["a"][0] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.0}, "density"),
        ({"bits": 9}, "bits"),
        ({"budget": -1}, "budget"),
        ({"allocation": "best"}, "allocation"),
        ({"upload_memory": -1, "history": True}, "upload_memory"),
        ({"max_gap": -1}, "max_gap"),
        ({"max_gap": 3, "max_residual_age": 3}, "max_gap"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorrelationAware(FedAvg(), **settings)


def test_a_budget_is_the_most_an_upload_takes() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 1)
    strategy = CorrelationAware(fedavg(1), density=1.0, budget=400)
    model = ArrayRecord({"weight": Array(initial_model()["weight"].numpy())})
    strategy.start(grid, model, num_rounds=2)
    frames = [record_to_frame(content["arrays"]) for _, content in grid.received]
    assert all(200 < len(frame) < 400 + 400 for frame in frames)
