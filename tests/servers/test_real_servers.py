"""The demo's app on a real SuperLink and two real SuperNodes: it learns, and the bytes
we report are those that crossed the sockets, and those that Flower counts itself."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.runner.config import compose
from flwr_caesar.runner.run import run
from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable

from .counting_proxy import CountingProxy

pytestmark = pytest.mark.servers

# Flower's own polling of a SuperLink by two SuperNodes, at most, in bytes per second
# (760 when idle); it weighs more the slower the machine is.
POLLING = 2_000
# What a run takes beside that however fast it is, at most, in bytes: its app is sent to
# each SuperNode (155 kB in all of what is not ours were seen, in 34 s and in 42).
PER_RUN = 60_000


def test_reported_bytes_are_those_on_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run after another on one SuperLink, uncompressed and compressed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with SuperLink(simulation=False) as link, CountingProxy(link.port) as proxy:
        monkeypatch.setenv("FLWR_HOME", str(link.home))
        for i in range(2):
            link.start_supernode(i, 2, port=proxy.port)
        for strategy in ("fedavg", "topk"):
            spec = specification(strategy)
            start, before = time.monotonic(), proxy.sent + proxy.received
            summary = run(spec, tmp_path / strategy)
            carried = proxy.sent + proxy.received - before
            others = PER_RUN + POLLING * (time.monotonic() - start)
            assert summary is not None
            assert summary["dropped"] == 0
            rounds = list(csv.DictReader((tmp_path / strategy / "rounds.csv").open()))
            assert float(rounds[-1]["accuracy"]) > 0.5

            up, down = summary["bytes_up"], summary["bytes_down"]
            assert up + down < carried < 1.05 * (up + down) + others
            # An independent meter, which has what wraps a message's arrays, too.
            inbound, outbound = flowers_bytes(link)
            assert up < inbound < 1.1 * up
            assert down < outbound < 1.1 * down
            if strategy == "topk":
                assert up + down < summary["raw_bytes"] / 4


def specification(strategy: str) -> dict[str, Any]:
    settings = [f"strategy={strategy}", f"connection={CONNECTION}", "federation=local"]
    spec = compose([*settings, "rounds=3", "model=mlp"])
    if strategy == "topk":
        # So that the upload is not small beside Flower's own polling.
        spec["strategy"] |= {"density": 0.3, "downlink": "lattice"}
    return spec


def flowers_bytes(link: SuperLink) -> tuple[int, int]:
    """Return what Flower counted from devices and to them, in the latest run."""
    listed = subprocess.run(
        [executable("flwr"), "list", CONNECTION, "--format", "json"],
        env=link.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    latest = max(json.loads(listed)["runs"], key=lambda run: str(run["pending-at"]))
    traffic = latest["network-traffic"]
    return int(traffic["inbound-bytes"]), int(traffic["outbound-bytes"])
