"""kill -9 of each kind of process: the run goes on or is resumed, and nothing of what
a device computed is lost or applied twice.

Each training adds one to every element of the device's own tensor, and top-k sends
other elements each time. So what was applied and what is left must sum to the same
whole number everywhere: a lost or repeated part would show as unequal elements.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id

pytestmark = pytest.mark.servers

APP = Path(__file__).parent / "law_app"
ROUNDS = 6
NODES = 3


def start_node(link: SuperLink, folder: Path, i: int) -> subprocess.Popen[bytes]:
    config = f"state-dir='{folder / f'device-{i}'}' work-dir='{folder}'"
    return link.start_supernode(i, NODES, node_config=config)


def start_run(link: SuperLink, folder: Path) -> subprocess.Popen[bytes]:
    config = f'folder="{folder}" rounds={ROUNDS}'
    command = [executable("flwr"), "run", str(APP), CONNECTION, "--stream"]
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--run-config", config],
            env=link.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_at(folder: Path, point: str, seconds: float = 120.0) -> None:
    """Kill the process that next reaches a point of the app."""
    at = folder / f"at-{point}"
    (folder / f"pause-{point}").write_text("")
    deadline = time.monotonic() + seconds
    while not (at.is_file() and at.read_text()):
        log = (folder / "run.log").read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, f"{point} was not reached: {log}"
        time.sleep(0.05)
    os.kill(int(at.read_text()), signal.SIGKILL)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_the_law_holds_whatever_is_killed(tmp_path: Path) -> None:
    with SuperLink(simulation=False) as link:
        nodes = [start_node(link, tmp_path, i) for i in range(NODES)]
        run = start_run(link, tmp_path)
        kill_at(tmp_path, "saved-0")  # a ClientApp: durable, and not yet replied
        wish = tmp_path / "pause-training-1"
        wish.write_text("")
        while wish.exists():
            time.sleep(0.05)
        kill(nodes[1])  # a SuperNode while it trains; it returns with a new node id
        nodes[1] = start_node(link, tmp_path, 1)
        kill_at(tmp_path, "aggregated")  # the ServerApp, before the checkpoint
        kill(run)
        run = start_run(link, tmp_path)
        wish = tmp_path / "pause-training-2"
        wish.write_text("")
        while wish.exists():
            time.sleep(0.05)
        kill(run)  # and the SuperLink with all that hangs on it
    with SuperLink(simulation=False) as link:
        nodes = [start_node(link, tmp_path, i) for i in range(NODES)]
        run = start_run(link, tmp_path)
        run.wait(timeout=300)
    log = (tmp_path / "run.log").read_text(errors="replace")[-3000:]
    assert (tmp_path / "done").is_file(), log

    with SqliteLedger(tmp_path / "checkpoint") as ledger:
        head, checkpoint = ledger.head(), ledger.checkpoint()
        assert head is not None
        assert checkpoint is not None
        assert checkpoint.round == ROUNDS
        for i in range(NODES):
            with FolderStore(tmp_path / f"device-{i}") as store:
                state = store.load(head.lineage)
            assert state is not None
            row = ledger.devices([device_id(state.token)])[device_id(state.token)]
            name = f"tensor-{i}"
            total = checkpoint.model[name] + state.residual[name]
            known = CodecState(update_layout(Layout.of(state.model)))
            for pending in state.pending:
                if pending.upload_id not in row.applied:
                    codec = get_codec(inspect_frame(pending.frame).config)
                    total = total + codec.decode(pending.frame, known)[0][name]
            trained = len((tmp_path / f"trained-{i}").read_text())
            np.testing.assert_array_equal(total, total[0], err_msg=name)
            assert total[0] == round(float(total[0]))
            # Killed at most twice between computing and saving.
            assert trained - 2 <= total[0] <= trained
            assert row.uploads >= 1
