"""What devices are sent: as few frames as versions, and the right model at the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import get_codec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published.lattice_model import decode_model
from flwr_caesar.strategies import CorrelationAware, ErrorBounded, TopK
from flwr_caesar.strategies.lattice_downlink import LatticeDownlink
from flwr_caesar.strategies.recovery_downlink import RecoveryDownlink
from flwr_caesar.strategies.whole_downlink import WholeDownlink
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import record_to_frame

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

HEADER = DownloadHeader(lineage=1, order=(1, 1), nonce=1, target=(0, bytes(8)))


def models(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 40)).astype(np.float32)
    found = []
    for _ in range(count):
        found.append({"w": weight.copy(), "b": weight[0, :8].copy()})
        weight += 0.01 * rng.normal(size=weight.shape).astype(np.float32)
    return found


def published(count: int, **settings):
    downlink = LatticeDownlink(**settings)
    versions = [downlink.publish(m, i) for i, m in enumerate(models(count))]
    return downlink, versions


def header(downlink, base) -> DownloadHeader:
    return replace(HEADER, target=downlink.version, base=base)


def test_what_changed_is_told_from_what_was_published_last() -> None:
    """Not from a model that the caller shows in between."""
    downlink = WholeDownlink(get_codec("dense"))
    first, second = models(2)
    second["b"] = first["b"]
    version = downlink.publish(first, 0)
    downlink.held(second)
    downlink.publish(second, 1)
    frame = record_to_frame(downlink.frame(0, header(downlink, version)))
    part, _ = get_codec("dense").decode(frame)
    assert list(part) == ["w"]
    np.testing.assert_array_equal(part["w"], second["w"])


def test_a_thousand_stale_devices_need_as_many_frames_as_versions() -> None:
    downlink, versions = published(31)
    rng = np.random.default_rng(1)
    held = [versions[i] for i in rng.integers(0, 30, 1000)]
    records = [
        downlink.frame(node, header(downlink, base)) for node, base in enumerate(held)
    ]
    frames = {record_to_frame(record) for record in records}
    assert len(frames) <= 30
    assert len({id(record) for record in records}) <= 30


def test_every_version_leads_to_the_published_model() -> None:
    downlink, versions = published(12)
    held = {}
    fresh = LatticeDownlink()
    for number, model in enumerate(models(12)):
        version = fresh.publish(model, number)
        whole = record_to_frame(fresh.frame(0, header(fresh, None)))
        held[version] = decode_model(whole)
        assert model_digest(held[version]) == version[1]
    for version in versions:
        assert version in downlink.bases
        frame = record_to_frame(downlink.frame(0, header(downlink, version)))
        model = decode_model(frame, held[version])
        assert model_digest(model) == downlink.version[1]


def test_versions_beyond_the_limit_are_forgotten() -> None:
    downlink, versions = published(8, max_versions=3)
    assert [v in downlink.bases for v in versions] == [False] * 4 + [True] * 4
    shared, versions = published(8, max_versions=3, shared_start=True)
    assert versions[0] in shared.bases
    assert shared.newcomer == versions[0]


def test_a_restarted_server_publishes_on() -> None:
    one, _ = published(6, shared_start=True)
    other = LatticeDownlink(shared_start=True)
    other.restore(one.state())
    assert other.version == one.version
    assert other.newcomer == one.newcomer
    assert dict(other.recipe) == dict(one.recipe)
    model = models(7)[-1]
    assert one.publish(model, 6) == other.publish(model, 6)


@pytest.mark.parametrize(
    "tree", [{"lattice": [1, 2]}, {"lattice": "abc"}, {"lattice": [1, 0, -5]}]
)
def test_a_damaged_state_is_refused(tree) -> None:
    with pytest.raises(DamagedStateError, match="malformed"):
        LatticeDownlink().restore(StrategyState(tree))


def test_devices_of_one_ratio_share_a_frame() -> None:
    downlink = RecoveryDownlink(exact_below=16)
    downlink.publish(models(1)[0], 0)
    downlink.assign({1: 0.6, 2: 0.6, 3: 0.2, 4: 0.0, 5: 0.6})
    base = (9, bytes(8))
    records = [downlink.frame(n, header(downlink, base)) for n in range(1, 5)]
    assert records[0] is records[1]
    sizes = [len(record_to_frame(record)) for record in records]
    assert sizes[1] < sizes[2] < sizes[3]
    # A device that holds nothing is sent the whole model, whatever its ratio.
    assert downlink.frame(5, header(downlink, None)) is records[3]


@pytest.mark.parametrize("method", [TopK, ErrorBounded, CorrelationAware])
def test_a_method_may_send_published_points_down(method, tmp_path) -> None:
    def run(downlink: str, rounds: int):
        strategy = method(
            FedAvg(fraction_evaluate=0),
            downlink=downlink,
            checkpoint=tmp_path / downlink,
        )
        result = strategy.start(grid, initial_model(), num_rounds=rounds)
        assert not any(record.dropped for record in strategy.history)
        return result.arrays["weight"].numpy(), strategy.history

    models, down = {}, {}
    for downlink in ("whole", "lattice"):
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)
        _, history = run(downlink, 3)
        models[downlink], more = run(downlink, 6)
        down[downlink] = sum(record.bytes_down for record in [*history[1:], *more])
    assert down["lattice"] < 0.4 * down["whole"]
    moved = np.linalg.norm(models["whole"] - initial_model()["weight"].numpy())
    assert np.linalg.norm(models["lattice"] - models["whole"]) < 0.25 * moved


def test_a_downlink_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="lattice"):
        TopK(FedAvg(), downlink="dense")
