"""The demo's app on a real SuperLink and two real SuperNodes: it learns, and the bytes
we report are those that crossed the sockets, and those that Flower counts itself."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path

import pytest

from flwr_caesar.runner.config import compose
from flwr_caesar.runner.run import run
from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable

from .counting_proxy import CountingProxy

pytestmark = pytest.mark.servers

# Flower's own polling of a SuperLink by two SuperNodes, at most, in bytes per second
# (760 when idle); it weighs more the slower the machine is.
POLLING = 2_000


@pytest.mark.parametrize(
    "strategy", ["fedavg", pytest.param("topk", marks=pytest.mark.flower)]
)
def test_reported_bytes_are_those_on_the_sockets(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = compose(
        [
            f"strategy={strategy}",
            f"connection={CONNECTION}",
            "federation=local",
            "rounds=3",
        ]
    )
    if strategy == "topk":
        # So that the upload is not small beside Flower's own polling.
        spec["strategy"] |= {"density": 0.3, "downlink": "lattice"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    start = time.monotonic()
    with SuperLink(simulation=False) as link, CountingProxy(link.port) as proxy:
        monkeypatch.setenv("FLWR_HOME", str(link.home))
        for i in range(2):
            link.start_supernode(i, 2, port=proxy.port)
        summary = run(spec, tmp_path)
        listed = subprocess.run(
            [executable("flwr"), "list", CONNECTION, "--format", "json"],
            env=link.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    polled = POLLING * (time.monotonic() - start)
    assert summary is not None
    rounds = list(csv.DictReader((tmp_path / "rounds.csv").open()))
    assert float(rounds[-1]["accuracy"]) > 0.5
    assert summary["dropped"] == 0

    up, down = summary["bytes_up"], summary["bytes_down"]
    assert up + down < proxy.sent + proxy.received < 1.05 * (up + down) + polled
    # An independent meter, which has what wraps the arrays of a message, too.
    (flower,) = json.loads(listed)["runs"]
    inbound, outbound = (
        flower["network-traffic"][f"{way}-bytes"] for way in ("inbound", "outbound")
    )
    assert up < inbound < 1.1 * up
    assert down < outbound < 1.1 * down
    if strategy == "topk":
        assert up + down < summary["raw_bytes"] / 4
