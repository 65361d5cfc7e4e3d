"""kill -9 of each kind of process, while an app trains on real SuperNodes: the run goes
on or is resumed, and nothing that a device computed is lost or applied twice.

The devices keep a journal of each update and each frame, see `kill_app`. At the end the
frames of the uploads in the server's ledger, those that wait in the device's folder and
its residual must sum to the updates that it computed.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
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
from flwr_caesar.runner.superlink import CONNECTION, SuperLink
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import DATABASE, SqliteLedger
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.sync.state import DeviceState

pytestmark = pytest.mark.servers

APP = Path(__file__).parent / "kill_app"
NODES = 3
# Nothing waits this long unless it is broken; a busy machine may be very slow.
PATIENCE = 600.0
COMMAND = """
import sys
from pathlib import Path
from flwr_caesar import cli
from flwr_caesar.runner import apps
app = Path(sys.argv.pop(1))
apps.app_folder = lambda: app
sys.exit(cli.main(sys.argv[1:]))
"""

Update = dict[str, np.ndarray]


class Demo:
    """``flwr-caesar run`` with `kill_app`, its folders and its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / "run"
        self.log = folder / "run.log"

    def start_node(self, link: SuperLink, i: int) -> subprocess.Popen[bytes]:
        config = f"state-dir='{self.folder / f'device-{i}'}' work-dir='{self.folder}'"
        return link.start_supernode(i, NODES, node_config=config)

    def start(self, link: SuperLink, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", COMMAND, str(APP), "run", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, f"connection={CONNECTION}"],
                cwd=self.folder,
                env=link.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def train(self, link: SuperLink) -> subprocess.Popen[bytes]:
        """Train for longer than the test lasts; a dead device does not stop it."""
        return self.start(
            link,
            "federation=local",
            f"federation.num_supernodes={NODES}",
            "rounds=1000",
            "model=mlp",
            "+strategy.quorum=0.6",
            "+strategy.deadline=90",
            f"hydra.run.dir={self.run_folder}",
        )

    def resume(self, link: SuperLink, *arguments: str) -> subprocess.Popen[bytes]:
        return self.start(link, f"resume={self.run_folder}", *arguments)

    def wait_at(self, point: str) -> int:
        """Wait until a process stands at a point of the app, and return its id."""
        at = self.folder / f"at-{point}"
        (self.folder / f"pause-{point}").write_text("")
        self.wait_for(at.is_file, point)
        return int(at.read_text())

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.last_words()}"
            time.sleep(0.05)

    def last_words(self) -> str:
        logs = [self.log, *self.run_folder.glob("*.log")]
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in logs)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_the_law_holds_whatever_is_killed(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    checkpoint = demo.run_folder / "checkpoint"
    with SuperLink(simulation=False) as link:
        nodes = [demo.start_node(link, i) for i in range(NODES)]
        run = demo.train(link)
        os.kill(demo.wait_at("saved-0"), signal.SIGKILL)
        training = demo.wait_at("training-1")
        kill(nodes[1])
        os.kill(training, signal.SIGKILL)  # else it would train on, and keep its lock
        nodes[1] = demo.start_node(link, 1)  # Flower gives it a new node id
        os.kill(demo.wait_at("aggregated"), signal.SIGKILL)
        kill(run)
        run = demo.resume(link)
        demo.wait_at("training-2")
        assert link.process is not None
        kill(link.process)
        kill(run)
    with SqliteLedger(checkpoint) as ledger:
        kept = ledger.checkpoint()
        rounds = 2 + (kept.round if kept else 0)
    with SuperLink(simulation=False) as link:
        nodes = [demo.start_node(link, i) for i in range(NODES)]
        run = demo.resume(link, f"rounds={rounds}", "strategy.quorum=1.0")
        demo.wait_for(lambda: run.poll() is not None, "the end")
    assert run.returncode == 0, demo.last_words()

    with SqliteLedger(checkpoint) as ledger:
        head, kept = ledger.head(), ledger.checkpoint()
        assert head is not None
        assert kept is not None
        assert kept.round == rounds
        for i in range(NODES):
            with FolderStore(tmp_path / f"device-{i}") as store:
                state = store.load(head.lineage)
            assert state is not None
            row = ledger.devices([device_id(state.token)])[device_id(state.token)]
            assert row.uploads == len(row.applied) >= 1
            assert_the_law(tmp_path, i, state, row)
    with sqlite3.connect(checkpoint / DATABASE) as database:
        counts = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("devices", "nodes")
        ]
    database.close()
    assert counts[0] == NODES < counts[1]  # the same devices, under other node ids


def assert_the_law(folder: Path, i: int, state: DeviceState, row: DeviceRow) -> None:
    """Compare what a device computed to what became of it."""
    known = CodecState(update_layout(Layout.of(state.model)))

    def decoded(frame: bytes) -> Update:
        return dict(get_codec(inspect_frame(frame).config).decode(frame, known)[0])

    sent = {}
    durable = set()
    for path in folder.glob(f"sent-{i}-*"):
        _, _, key, upload = path.name.split("-")
        sent[int(upload, 16)] = path.read_bytes()
        durable.add(key)
    parts: list[Update] = [dict(state.residual)]
    parts += [decoded(sent[upload]) for upload in row.applied]
    parts += [
        decoded(pending.frame)
        for pending in state.pending
        if pending.upload_id not in row.applied
    ]
    computed: list[Update] = []
    in_doubt: list[Update] = []  # killed before or after it became durable
    for path in folder.glob(f"computed-{i}-*"):
        with np.load(path) as arrays:
            update = dict(arrays)
        key = path.name.split("-")[2]
        (computed if key in durable else in_doubt).append(update)
    assert computed
    assert len(in_doubt) <= 3

    def differs(more: tuple[Update, ...]) -> bool:
        for name in state.residual:
            total = sum(part[name].astype(np.float64) for part in parts)
            expected = sum(update[name] for update in (*computed, *more))
            scale = max(np.abs(update[name]).max() for update in computed)
            if np.abs(total - expected).max() > 1e-5 * scale:
                return True
        return False

    choices = [c for n in range(len(in_doubt) + 1) for c in combinations(in_doubt, n)]
    assert state.residual
    assert not all(map(differs, choices)), f"device {i}"
