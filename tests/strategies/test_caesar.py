"""Caesar through Flower: what travels, who gets what, and what survives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAdam, FedAvg

from flwr_caesar.clients import CompressionMod, compression_mod
from flwr_caesar.strategies import Caesar
from flwr_caesar.transport import arrays_nbytes

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


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
        assert result.arrays["steps"].numpy() == expected.arrays["steps"].numpy()


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
    assert down[4][3] > 2 * down[4][1]  # a newcomer gets the whole model
    assert down[4][1] == down[4][2]


def test_a_newcomer_with_a_shared_start_downloads_changes_only() -> None:
    def run(shared: bool, **mod):
        random.seed(0)
        strategy = Caesar(FedAvg(fraction_evaluate=0.0), shared_start=shared)
        app = numpy_app(mods=[CompressionMod(**mod)])
        strategy.start(LocalGrid(app, 3), initial_model(), num_rounds=3)
        return strategy.history

    shared = run(True, initial=lambda context: initial_model())
    assert not any(record.dropped for record in shared)
    assert shared[0].bytes_down == 0
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
        if len(grid.sent) == 9 and node == 3:
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
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Caesar(FedAvg(), **settings)
