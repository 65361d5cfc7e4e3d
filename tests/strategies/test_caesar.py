"""Caesar through Flower: what travels, who gets what, and what survives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAdam, FedAvg

from flwr_caesar.clients import CompressionMod, compression_mod
from flwr_caesar.plan import VirtualClock
from flwr_caesar.plan.profiles import Profile
from flwr_caesar.strategies import Caesar
from flwr_caesar.strategies.grid import Arrival, StreamingGrid
from flwr_caesar.strategies.recovery_downlink import RecoveryDownlink
from flwr_caesar.transport import DeviceReport, arrays_nbytes

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid
from .replies import put_note


def labelled(context) -> list[int]:
    return [context.node_id, 1, 2]


@pytest.mark.parametrize("codec", ["paper", "lattice"])
@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
def test_both_codecs_learn_what_the_inner_strategy_learns(inner, codec: str) -> None:
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[CompressionMod(labels=labelled)]), 6)
    kwargs = {} if codec == "paper" else {"rate": 2.0, "first_bits": 8}
    strategy = Caesar(inner(), codec=codec, exact_below=16, **kwargs)
    result = strategy.start(grid, initial_model(), num_rounds=6)
    assert not any(record.dropped for record in strategy.history)
    plain = inner()
    expected = plain.start(LocalGrid(numpy_app(), 6), initial_model(), num_rounds=6)
    start = initial_model()["weight"].numpy()
    moved = result.arrays["weight"].numpy() - start
    meant = expected.arrays["weight"].numpy() - start
    cosine = (moved * meant).sum() / np.linalg.norm(moved) / np.linalg.norm(meant)
    assert cosine > 0.85
    if codec == "lattice":  # the paper weighs all devices alike
        np.testing.assert_allclose(
            result.arrays["steps"].numpy(), expected.arrays["steps"].numpy(), rtol=1e-12
        )


def test_a_device_is_sent_what_changed_since_its_own_version() -> None:
    asked = {1: [1, 2], 2: [1], 3: [1], 4: [1, 2], 5: [1, 2, 3]}

    class Chosen(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            chosen = asked[server_round]
            return [m for m in messages if m.metadata.dst_node_id in chosen]

    strategy = Caesar(Chosen(fraction_evaluate=0.0))
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)
    strategy.start(grid, initial_model(), num_rounds=5)
    assert not any(record.dropped for record in strategy.history)
    down = [
        {d.node_id: d.bytes_down for d in record.devices} for record in strategy.history
    ]
    assert down[3][2] > down[3][1]  # three versions behind, and one
    assert down[4][3] > 1.2 * down[4][1]  # a newcomer gets the whole model
    assert 0 <= down[4][1] - down[4][2] < 64  # one frame; more uploads acknowledged


def test_a_newcomer_with_a_shared_start_downloads_changes_only() -> None:
    def run(shared: bool, **mod):
        random.seed(0)
        strategy = Caesar(FedAvg(fraction_evaluate=0.0), shared_start=shared)
        app = numpy_app(mods=[CompressionMod(**mod)])
        strategy.start(LocalGrid(app, 3), initial_model(), num_rounds=3)
        return strategy.history

    shared = run(True, initial=lambda context: initial_model())
    assert not any(record.dropped for record in shared)
    assert shared[0].bytes_down < 3 * 500  # our record, and no frame
    alone = run(False)
    assert alone[0].bytes_down > 3000
    other = run(True, initial=lambda context: initial_model(seed=1))
    assert "whole model" in other[0].dropped[1]
    assert not other[1].dropped
    assert not other[2].dropped


@pytest.mark.parametrize("codec", ["paper", "lattice"])
def test_a_resumed_run_is_the_uninterrupted_one(codec: str, tmp_path: Path) -> None:
    def run(folder: Path, *stops: int):
        grid = LocalGrid(numpy_app(mods=[CompressionMod(labels=labelled)]), 4)
        for stop in stops:
            strategy = Caesar(FedAdam(), codec=codec, checkpoint=folder)
            result = strategy.start(grid, initial_model(), num_rounds=stop)
        return result, strategy

    whole, first = run(tmp_path / "whole", 6)
    resumed, strategy = run(tmp_path / "parts", 2, 4, 6)
    for name in whole.arrays:
        np.testing.assert_array_equal(
            whole.arrays[name].numpy(), resumed.arrays[name].numpy(), err_msg=name
        )
    assert not any(record.dropped for record in strategy.history)
    last = [record.bytes_down for record in first.history[-4:]]
    assert [record.bytes_down for record in strategy.history] == last


def test_a_device_that_lost_its_model_is_not_assumed_to_have_it() -> None:
    strategy = Caesar(FedAvg(fraction_evaluate=0.0), codec="paper")
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)

    def forget(reply: Message, node: int) -> Message:
        if len(grid.sent) == 9:  # the last of the third round
            for key in list(grid.contexts[2].state):
                del grid.contexts[2].state[key]
        return reply

    grid.tamper = forget
    strategy.start(grid, initial_model(), num_rounds=6)
    assert [set(record.dropped) for record in strategy.history] == [
        *[set()] * 3,
        {2},
        *[set()] * 2,
    ]
    down = {d.node_id: d.bytes_down for d in strategy.history[4].devices}
    assert down[2] > 1.2 * down[1]


def test_labels_are_asked_once_and_nobody_must_tell() -> None:
    asked: list[int] = []

    def labels(context):
        asked.append(context.node_id)
        return [1, 2]

    grid = LocalGrid(numpy_app(mods=[CompressionMod(labels=labels)]), 4)
    Caesar(FedAvg(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=3)
    assert sorted(asked) == [1, 2, 3, 4]
    quiet = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy = Caesar(FedAvg(fraction_evaluate=0.0))
    strategy.start(quiet, initial_model(), num_rounds=2)
    assert not any(record.dropped for record in strategy.history)
    assert all(arrays_nbytes(content) > 0 for kind, content in quiet.received if kind)


def test_measured_times_of_real_devices_make_them_finish_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every message starts a process and waits for polls, as under SuperNodes."""
    steps, largest, per_sample = 100, 64, 2e-3
    rates = {1: 3e3, 2: 6e3, 3: 1e6}  # bytes a second of a node's link
    handle = StreamingGrid.send_and_receive

    def at_real_speed(self, messages, *, timeout=None):
        requests = list(messages)
        sent = {
            m.metadata.dst_node_id: (
                m.content["config"]["batch-size"],
                arrays_nbytes(m.content),
            )
            for m in requests
        }
        for arrival in handle(self, requests, timeout=timeout):
            node, content = arrival.node_id, arrival.message.content
            batch, down = sent[node]
            train = batch * steps * per_sample
            link = (down + arrays_nbytes(content)) / rates[node]
            report, header = DeviceReport.read(content)
            report = DeviceReport(train, start=5.0, labels=report.labels)
            put_note(arrival.message, report.note(header))
            yield Arrival(node, arrival.message, train + link + 8.0)

    monkeypatch.setattr(StreamingGrid, "send_and_receive", at_real_speed)
    app = numpy_app(mods=[CompressionMod(labels=labelled)])

    def run(min_batch: int):
        strategy = Caesar(
            FedAvg(fraction_evaluate=0.0),
            codec="paper",
            local_steps=steps,
            max_batch=largest,
            min_batch=min_batch,
        )
        strategy.start(LocalGrid(app, 3), initial_model(), num_rounds=6)
        return strategy.history

    fixed, sized = run(largest), run(1)
    assert all(record.waiting[1] > 5 for record in fixed)
    for record in sized[2:]:
        batches = {d.node_id: d.batch_size for d in record.devices}
        assert batches[1] < batches[2] < batches[3] == largest
        assert record.waiting[1] < 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "zip"}, "codec"),
        ({"rate": 0}, "rate"),
        ({"local_steps": 0}, "local_steps"),
        ({"round_seconds": 5}, "local_steps"),
        ({"min_batch": 64}, "min_batch"),
        ({"theta_upload_min": 0.9}, "theta_upload_min"),
        ({"codec": "paper", "theta_max": 2}, "theta_max"),
        ({"step_sigmas": 0}, "step_sigmas"),
        ({"first_bits": -1}, "first_bits"),
        ({"clusters": 0}, "clusters"),
        ({"rank": 33}, "rank must be 0 to 32"),
        ({"rank": -1}, "rank must be 0 to 32"),
        ({"codec": "paper", "rank": 4}, "rank has no effect"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Caesar(FedAvg(), **settings)


def fleet_clock(devices: int) -> VirtualClock:
    """Half of the devices ten times slower than the others, over one steady link."""

    def device(speed: float) -> dict[str, object]:
        return {
            "share": 1,
            "utilisation": 1.0,
            "modes": {"on": {"peak_flops": speed}},
            "links": {"wifi": 1},
        }

    link = {"down_bps": 8e6, "up_bps": 8e6, "spread": 0, "drift": 0, "persistence": 0}
    profile = Profile.of(
        {
            "name": "two classes",
            "mode_rounds": 10,
            "flops_per_sample": 1e9,
            "devices": {"fast": device(1e12), "slow": device(1e11)},
            "links": {"wifi": link},
        }
    )
    assert profile is not None
    return VirtualClock(profile, devices, seed=3)


def last_round(codec: str, **settings):
    random.seed(0)
    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0),
        codec=codec,
        local_steps=10,
        max_batch=64,
        clock=fleet_clock(8),
        **settings,
    )
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 8)
    strategy.start(grid, initial_model(), num_rounds=4)
    record = strategy.history[-1]
    assert not record.dropped
    assert len({device.device_class for device in record.devices}) == 2
    return record


@pytest.mark.parametrize("codec", ["paper", "lattice"])
def test_batch_sizes_let_slow_devices_finish_with_fast_ones(codec: str) -> None:
    fixed = last_round(codec, min_batch=64)
    sized = last_round(codec, min_batch=2)
    assert {device.batch_size for device in fixed.devices} == {64}
    for device in sized.devices:
        if device.device_class == "fast":
            assert device.batch_size >= 60
        else:
            assert 2 <= device.batch_size <= 10
    assert sized.waiting[0] < 0.2 * fixed.waiting[0]
    assert {device.local_steps for device in sized.devices} == {10}


def test_a_round_of_given_length_is_kept_with_the_most_that_fits() -> None:
    record = last_round("lattice", min_batch=2, round_seconds=0.5)
    for device in record.devices:
        assert 0.3 < device.virtual_seconds < 0.55


@pytest.mark.parametrize("aware", [True, False])
def test_one_ratio_for_all_unless_staleness_counts(aware: bool, monkeypatch) -> None:
    rounds: list[set[float]] = []
    assign = RecoveryDownlink.assign

    def noted(self: RecoveryDownlink, ratios: dict[int, float], **again) -> None:
        rounds.append({ratio for ratio in ratios.values() if ratio > 0})
        assign(self, ratios, **again)

    monkeypatch.setattr(RecoveryDownlink, "assign", noted)
    random.seed(0)
    strategy = Caesar(
        FedAvg(fraction_train=0.5, fraction_evaluate=0.0),
        codec="paper",
        staleness_aware=aware,
    )
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 8)
    strategy.start(grid, initial_model(), num_rounds=6)
    assert (max(map(len, rounds)) > 1) == aware


@pytest.mark.parametrize("aware", [True, False])
def test_a_test_does_not_change_what_a_device_trains_on(aware: bool) -> None:
    """The model recovered for a test has a ratio of its own."""

    def run(evaluate: float):
        random.seed(0)
        strategy = Caesar(
            FedAvg(fraction_evaluate=evaluate, min_train_nodes=4),
            codec="paper",
            staleness_aware=aware,
        )
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
        return strategy, strategy.start(grid, initial_model(), num_rounds=5)

    _, plain = run(0.0)
    strategy, tested = run(1.0)
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(
            array.numpy(), tested.arrays[name].numpy(), err_msg=name
        )
    train = [r for r in strategy.history if r.phase == "train"]
    whole = train[0].bytes_down
    assert all(r.bytes_down > 0.3 * whole for r in train)  # recovered anew


def test_who_holds_the_model_of_its_ratio_is_not_sent_it_twice() -> None:
    """A newcomer that was tested holds the whole model, which is what it trains."""

    class LateForTwo(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            nodes = [1] if server_round == 1 else [1, 2]
            return [m for m in messages if m.metadata.dst_node_id in nodes]

    random.seed(0)
    strategy = Caesar(LateForTwo(), codec="paper")
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    strategy.start(grid, initial_model(), num_rounds=2)
    train = [r for r in strategy.history if r.phase == "train"]
    down = {d.node_id: d.bytes_down for d in train[1].devices}
    assert down[2] < 1000 < down[1]


@pytest.mark.parametrize("resend", [True, False])
def test_an_upload_that_is_lost_returns_or_is_gone(resend: bool) -> None:
    """Downloads and uploads are exact here, so that the model tells what arrived."""

    def pull(arrays, node, server_round):
        return {n: np.asarray(a + node, a.dtype) for n, a in arrays.items()}

    app = numpy_app(mods=[compression_mod], step=pull)
    grid = LocalGrid(app, 2)
    seen: list[int] = []

    def lose(reply: Message, node: int) -> Message | None:
        seen.append(node)
        return None if node == 2 and seen.count(2) == 2 else reply

    grid.tamper = lose
    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1),
        codec="paper",
        theta_max=0.0,
        theta_upload_min=0.0,
        theta_upload_max=0.0,
        resend_lost=resend,
    )
    result = strategy.start(grid, initial_model(), num_rounds=4, timeout=0.01)
    moved = result.arrays["bias"].numpy() - initial_model()["bias"].numpy()
    # Both; device 1 alone, also while device 2 asks for a whole model; both, with what
    # device 2 had lost, or without.
    meant = 1.5 + 1 + 1 + (2.5 if resend else 1.5)
    np.testing.assert_allclose(moved, meant, rtol=1e-5)


def test_resend_lost_is_of_the_papers_codec() -> None:
    with pytest.raises(ValueError, match="resend_lost has no effect"):
        Caesar(FedAvg(), resend_lost=False)


def test_one_known_device_of_many_is_not_the_least_important() -> None:
    method = Caesar(FedAvg(), codec="paper").method
    method._fleet.learn(["a"], 1, volumes=[10], labels=[()])
    slots = method._fleet.slots(["a", "b"])
    assert method._theta(slots, 100) == pytest.approx([0.3525, 0.3525])
    assert method._theta(slots, 1)[0] == pytest.approx(0.6)
