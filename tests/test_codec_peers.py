"""Codecs of others: counted fairly, and said so where they are not installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from flwr_caesar.cli import main
from flwr_caesar.codec import CodecError, Layout, get_codec
from flwr_caesar.codec_bench import measure
from flwr_caesar.codec_peers import PEERS, Peer, get_peer
from flwr_caesar.codec_peers.peer import relative_bounds

Rounds = list[dict[str, np.ndarray[Any, Any]]]


@pytest.fixture
def rounds() -> Rounds:
    rng = np.random.default_rng(0)
    shared = rng.laplace(size=(60, 50))
    return [
        {
            "n": np.array(step),
            "w": (shared + 0.3 * rng.laplace(size=(60, 50))).astype(np.float32),
            "b": rng.standard_normal(9).astype(np.float32),
            "v": np.zeros(1500, np.float32),
            "h": rng.standard_normal(2000).astype(np.float16),
        }
        for step in range(3)
    ]


@dataclass(frozen=True, kw_only=True)
class Halves(Peer):
    """A peer that needs no package: half precision, and a count as its memory."""

    id: ClassVar[str] = "halves"

    def error_bound(self, arrays):
        return relative_bounds(self, arrays, 1e-2)

    def _encode(self, arrays, state):
        pieces = [arrays[s.name].astype("<f2").tobytes() for s in self.lossy]
        return pieces, (state or 0) + 1

    def _decode(self, pieces, state):
        halves = {
            spec.name: np.frombuffer(piece, "<f2").reshape(spec.shape).astype("f4")
            for spec, piece in zip(self.lossy, pieces, strict=True)
        }
        return halves, (state or 0) + 1


def test_a_peer_codes_large_float32_tensors_and_all_others_are_exact(rounds) -> None:
    peer = Halves(layout=Layout.of(rounds[0]))
    assert [spec.name for spec in peer.lossy] == ["w", "v"]
    frame, state = peer.encode(rounds[0])
    small = {name: rounds[0][name] for name in ("n", "b", "h")}
    exact, _ = get_codec("dense").encode(small)
    assert len(frame) == len(exact) + 2 * (3000 + 1500) + 3 * 4
    decoded, other = peer.decode(frame)
    assert state == other == 1
    assert list(decoded) == list(rounds[0])
    for name in small:
        assert decoded[name].tobytes() == small[name].tobytes()
    _, total, _ = measure(peer, rounds)
    assert total.max_error_over_bound is not None
    assert 0 < total.max_error_over_bound < 1
    assert total.bytes >= 3 * len(frame) - 100


@pytest.mark.parametrize("name", PEERS)
def test_an_absent_peer_is_named_with_the_line_that_installs_it(
    name, monkeypatch, tmp_path: Path, capsys
) -> None:
    package = PEERS[name].module.partition(".")[0]
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "0.npz"
    np.savez(path, w=np.ones((40, 40), np.float32))
    assert main(["codec", "bench", str(path), "--peer", name]) == 1
    err = capsys.readouterr().err
    assert f"{name} is not installed" in err
    assert "pip install" in err


def test_a_peer_or_setting_that_is_none_is_refused() -> None:
    layout = Layout.of({})
    with pytest.raises(CodecError, match="no peer 'zfp'; there are sz3, nncodec"):
        get_peer("zfp", {}, layout)
    for settings, reason in (
        ({"rel": 2.0}, "rel must be"),
        ({"rate": 1}, "rate"),
    ):
        for name in PEERS:
            with pytest.raises(CodecError, match=reason):
                get_peer(name, settings, layout)


def installed(name: str) -> pytest.MarkDecorator:
    package = PEERS[name].module.partition(".")[0]
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
    )


CASES = [
    pytest.param("sz3", {}, marks=installed("sz3")),
    pytest.param("sz3", {"algorithm": "NOPRED"}, marks=installed("sz3")),
    pytest.param("nncodec", {}, marks=installed("nncodec")),
    pytest.param("nncodec", {"temporal": False}, marks=installed("nncodec")),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("rel", [1e-3, 1e-1])
def test_a_peer_keeps_its_bound(name, settings, rel, rounds) -> None:
    peer = get_peer(name, {"rel": rel, **settings}, Layout.of(rounds[0]))
    _, total, _ = measure(peer, rounds)
    assert total.max_error_over_bound is not None
    assert 0.9 < total.max_error_over_bound < 1.001


@installed("nncodec")
def test_nncodec_comes_within_its_error_and_remembers(rounds) -> None:
    layout = Layout.of(rounds[0])
    found = {}
    for temporal in (False, True):
        settings = {"nmse": 0.2, "temporal": temporal}
        _, found[temporal], _ = measure(get_peer("nncodec", settings, layout), rounds)
        assert found[temporal].max_error_over_bound is None
    of_lossy = sum(float(np.square(r["w"]).sum()) for r in rounds)
    of_all = of_lossy + sum(
        float(np.square(r[n].astype("f4")).sum()) for r in rounds for n in ("b", "h")
    )
    for total in found.values():
        assert 0.17 < (total.nmse or 0.0) * of_all / of_lossy <= 0.2
    assert found[True].bytes < found[False].bytes
