"""The runbook of docs/deployment.md, followed in network namespaces.

One run of Caesar is taken through all of it: server and devices of an older commit are
upgraded one by one, a key is rotated, a board replaced, the server moved to another
machine and address, killed, and restored from the backup of a running one. After each
step the run goes on for two rounds, in which every device has to take part. Writes
docs/benchmarks/runbook.md. Needs root, iproute2, git and about a quarter of an hour.

    sudo python benchmarks/runbook.py --home FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from environment import describe

from flwr_caesar.deploy.lab import Lab, LabError
from flwr_caesar.deploy.network import SERVER, Link, ip, join, namespace, why_not
from flwr_caesar.deploy.server_folder import CONNECTION, ServerFolder
from flwr_caesar.runner.superlink import executable

CLONE = Path(__file__).parent.parent
TABLE = CLONE / "docs" / "benchmarks" / "runbook.md"
# Its states are of format 4, this commit's of format 5; both speak protocol 2.
OLD = "8caf7ee"
NODES = 3
SPARE = 3
MBIT = 20.0
ROUNDS = 2
ELSEWHERE = "10.213.254.1"
WHOLE = "the device needs a whole model"
_PATIENCE = 240.0


class RunbookError(RuntimeError):
    """Something was not as the runbook says."""


class Fleet(Lab):
    """A lab whose server may move, and whose machines have one release or another."""

    place = "server"
    old: Path

    def __init__(self, *, home: Path) -> None:
        super().__init__([MBIT] * (NODES + 1), home=home)
        self.outdated = {"server", *(f"node-{i}" for i in range(NODES))}
        self._mark = self.server

    @property
    def folder(self) -> ServerFolder:
        """The server's folder, on the machine where it is now."""
        return ServerFolder(self.home / self.place)

    def program(self, machine: str) -> str:
        """Return ``flwr-caesar`` of a machine: ``server``, ``node-0``, and so on."""
        if machine in self.outdated:
            return str(self.old / "flwr-caesar")
        return executable("flwr-caesar")

    def ask(self, *command: str) -> str:
        """Run a command of flwr-caesar on the server."""
        return self.must(self.server, self.program("server"), *command)

    def must(self, where: str, *command: str) -> str:
        """Run a command that has to succeed, and return what it printed."""
        done = self.run(where, *command)
        if done.returncode:
            raise RunbookError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def serve(self, *addresses: str) -> None:
        """``deploy server --address … --start``; without systemd, in the foreground."""
        told = [part for address in addresses for part in ("--address", address)]
        command = [self.program("server"), "deploy", "server", *told, "--start"]
        self.spawn("server", self.server, *command)

        def answers() -> bool:
            return self.folder.settings_file.exists() and self._server_answers()

        self.wait("the server", answers, log="server")

    def enter(self, link: Link, name: str, *more: str) -> None:
        """Make a ticket for a device, and let it join with it."""
        ticket = self.ask("enrol", "ticket", name, "--partitions", str(NODES)).strip()
        folder = ("--folder", str(self.device_folder(link)))
        program = self.program(f"node-{link.number}")
        machine = ("--machine", f"board {link.number}")
        self.must(link.namespace, program, "join", ticket, *more, *folder, *machine)

    def start_node(self, link: Link) -> None:
        """Start ``flwr-caesar node`` on a device."""
        name = f"node-{link.number}"
        path = self.device_folder(link) / "node.toml"
        self.spawn(name, link.namespace, self.program(name), "node", str(path))

    def restart_node(self, link: Link) -> None:
        """``systemctl restart flwr-caesar-node``, and wait until it is online."""
        name = f"node-{link.number}"
        self.end(name)
        since = len(self.log(name))
        self.start_node(link)
        self.says(name, "flwr-caesar: Online", since)

    def rows(self) -> dict[str, dict[str, object]]:
        """Return ``fleet status`` by device."""
        rows = json.loads(self.ask("fleet", "status", "--json"))
        return {str(row["name"]): row for row in rows}

    def all_online(self) -> None:
        """Wait until every device of the fleet is online."""

        def are() -> bool:
            return all(row["state"] == "online" for row in self.rows().values())

        self.wait("the devices", are, log="node-0", seconds=_PATIENCE)

    def says(self, log: str, words: str, since: int = 0) -> None:
        """Wait until a log has some words."""

        def said() -> bool:
            return words in self.log(log)[since:]

        self.wait(f"{words!r} in {log}", said, log="server", seconds=_PATIENCE)

    def _marker(self, name: str) -> str:
        return f"FLWR_CAESAR_LAB={self._mark}:{name}"


@dataclass
class Run:
    """A run of Caesar, in the server's folder, that is gone on with."""

    fleet: Fleet
    rounds: int = 0

    @property
    def folder(self) -> Path:
        """Where it is kept: with the server's state, so that a backup has it."""
        return self.fleet.folder.state / "runs" / "runbook"

    def go_on(self) -> str:
        """Run two more rounds and check them; return how many kB each device got."""
        fleet, fresh = self.fleet, self.rounds == 0
        fleet.all_online()
        self.rounds += ROUNDS
        settings = [f"resume={self.folder}"]
        if fresh:
            settings = [
                "strategy=caesar",
                "federation=local",
                f"hydra.run.dir={self.folder}",
            ]
            settings += [
                f"federation.num_supernodes={NODES}",
                "data.partition.kind=iid",
            ]
        command = [fleet.program("server"), "run", f"connection={CONNECTION}"]
        command += [*settings, f"rounds={self.rounds}"]
        if fleet.run_app(*command, timeout=900):
            raise RunbookError(fleet.log("app")[-3000:])
        rows = self._table("rounds.csv")
        if len(rows) != self.rounds + 1:
            raise RunbookError(f"{len(rows) - 1} rounds of {self.rounds}")
        return self._judge(rows[-ROUNDS:])

    def _judge(self, rows: list[dict[str, str]]) -> str:
        trained: list[list[dict[str, str]]] = [
            [
                row
                for row in self._table("devices.csv")
                if row["round"] == each["round"] and row["phase"] == "train"
            ]
            for each in rows
        ]
        lost = [row for rounds in trained for row in rounds if row["dropped"]]
        # A device that the server does not know again by its node id may ask for more
        # than it is sent, once; from the second round on each one takes part.
        unlike = [row for row in lost if row["dropped"] != WHOLE]
        last = [row for row in trained[-1] if not row["dropped"]]
        if unlike or len(last) != NODES:
            raise RunbookError(f"trained {len(last)}, lost {unlike}")
        down = sorted(
            (int(row["bytes_down"]) / 1e3 for row in trained[0]), reverse=True
        )
        told = " + ".join(f"{kb:.1f}" for kb in down)
        return f"{told} | {len(lost)} | {float(rows[-1]['accuracy']):.1%}"

    def _table(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(encoding="utf-8") as file:
            return list(csv.DictReader(file))


def begin(fleet: Fleet, run: Run) -> str:
    """Start both sides of the old commit."""
    fleet.serve(SERVER)
    for link in fleet.links[:NODES]:
        fleet.enter(link, f"jetson-{link.number}")
        fleet.start_node(link)
    return "all of the older commit"


def upgrade_one(fleet: Fleet, run: Run) -> str:
    """Upgrade one device, with the server still old."""
    fleet.outdated.remove("node-0")
    fleet.restart_node(fleet.links[0])
    return "state of format 4 read, server still old"


def upgrade_others(fleet: Fleet, run: Run) -> str:
    """Upgrade the other devices, with the server still old."""
    for link in fleet.links[1:NODES]:
        fleet.outdated.remove(f"node-{link.number}")
        fleet.restart_node(link)
    return "server still old"


def upgrade_server(fleet: Fleet, run: Run) -> str:
    """Upgrade the server, between runs."""
    fleet.end("server")
    fleet.outdated.clear()
    fleet.serve(SERVER)
    return "devices came back by themselves"


def rotate_key(fleet: Fleet, run: Run) -> str:
    """Give a device a new key."""
    link, name = fleet.links[1], "jetson-1"
    before = fleet.rows()[name]
    fleet.ask("fleet", "remove", name)
    fleet.enter(link, name, "--anew")
    fleet.restart_node(link)
    fleet.all_online()
    after = fleet.rows()[name]
    same = after["partition_id"] == before["partition_id"]
    if not same or after["node_id"] == before["node_id"]:
        raise RunbookError(f"{before} became {after}")
    return "same part of the data, another node to Flower"


def replace_board(fleet: Fleet, run: Run) -> str:
    """Put a new board in the place of one, and switch the old one on once more."""
    old, new, name = fleet.links[2], fleet.links[SPARE], "jetson-2"
    part = fleet.rows()[name]["partition_id"]
    fleet.end("node-2")
    fleet.ask("fleet", "remove", name)
    fleet.enter(new, name)
    fleet.start_node(new)
    fleet.all_online()
    if fleet.rows()[name]["partition_id"] != part:
        raise RunbookError("the new board has another part of the data")
    since = len(fleet.log("node-2"))
    fleet.start_node(old)
    fleet.says("node-2", "does not know this device's key", since)
    fleet.end("node-2")
    return "the old board, switched on again, was told that it is not known"


def move_server(fleet: Fleet, run: Run) -> str:
    """Move the server to another machine with another address."""
    fleet.ask("deploy", "server", "--address", SERVER, "--address", ELSEWHERE)
    fleet.end("server")
    source = fleet.folder.path
    fleet.place = "moved"
    copy(source, fleet.folder.path)
    shutil.move(source, fleet.home / "switched-off")
    move_links(fleet, ELSEWHERE)
    fleet.serve(ELSEWHERE, SERVER)
    for link in (*fleet.links[:2], fleet.links[SPARE]):
        file = fleet.device_folder(link) / "node.toml"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(SERVER, ELSEWHERE), encoding="utf-8")
        fleet.restart_node(link)
    return "certificate with both addresses beforehand, `[server] address` changed"


def restore(fleet: Fleet, run: Run) -> str:
    """Back up a running server, go on, kill it, and restore the backup."""
    backup = fleet.home / "backup"
    source = fleet.folder.path
    copy(source, backup, ignore=shutil.ignore_patterns("*.db*"))
    for name in ("fleet.db", "superlink.db"):
        with (
            sqlite3.connect(source / "state" / name) as database,
            sqlite3.connect(backup / "state" / name) as copied,
        ):
            database.backup(copied)
    kept = run.rounds
    run.go_on()
    rotate_key(fleet, run)
    fleet.kill("server")
    shutil.rmtree(source)
    copy(backup, source)
    run.rounds = kept
    fleet.serve(ELSEWHERE, SERVER)
    fleet.says("node-1", "does not know this device's key", len(fleet.log("node-1")))
    fleet.ask("fleet", "remove", "jetson-1")
    fleet.enter(fleet.links[1], "jetson-1", "--anew")
    fleet.restart_node(fleet.links[1])
    return "killed two rounds and one new key after the backup"


def lost_database(fleet: Fleet, run: Run) -> str:
    """Lose ``state/superlink.db``; the run goes on from its checkpoint."""
    fleet.kill("server")
    for file in fleet.folder.state.glob("superlink.db*"):
        file.unlink()
    fleet.serve(ELSEWHERE, SERVER)
    return "keys registered anew by the gate"


STEPS: dict[str, Callable[[Fleet, Run], str]] = {
    "begin": begin,
    "upgrade one device": upgrade_one,
    "upgrade the other devices": upgrade_others,
    "upgrade the server": upgrade_server,
    "rotate a device's key": rotate_key,
    "replace a board": replace_board,
    "move the server": move_server,
    "restore from a backup": restore,
    "lose Flower's database": lost_database,
}


def copy(
    source: Path, target: Path, *, ignore: Callable[..., set[str]] | None = None
) -> None:
    """Copy a folder with its modes; all owners in the lab are the same."""
    shutil.copytree(source, target, symlinks=True, ignore=ignore)


def move_links(fleet: Fleet, address: str) -> None:
    """Join all devices' namespaces to another machine's with another address."""
    moved = f"{fleet._mark}-moved"
    fleet._stack.enter_context(namespace(moved))
    ip("ip", "-n", moved, "addr", "add", f"{address}/32", "dev", "lo")
    for link in fleet.links:
        ip("ip", "-n", fleet.server, "link", "del", link.server_end)
        join(moved, link)
    fleet.server = moved


@contextmanager
def old_environment(reference: str, folder: Path) -> Iterator[Path]:
    """Install an older commit beside this one's packages; yield its ``bin``."""
    sources, made = folder / "old-sources", folder / "old"
    sources.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", reference], cwd=CLONE, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", sources], input=archive, check=True)
    venv.create(made, with_pip=False, symlinks=True)
    site = next(made.glob("lib/python*/site-packages"))
    own = (sys.base_prefix, str(Path(__file__).parent))
    shared = [path for path in sys.path if path and not path.startswith(own)]
    (site / "shared.pth").write_text("\n".join(shared) + "\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", made / "bin" / "python"),
            *("install", "--quiet", "--no-deps", "--no-build-isolation", sources),
        ],
        check=True,
    )
    for script in Path(sys.executable).parent.glob("fl*"):
        text = script.read_text(encoding="utf-8")
        target = made / "bin" / script.name
        if not target.exists():
            target.write_text(re.sub(r"^#!.*", f"#!{made}/bin/python", text))
            target.chmod(0o755)
    yield made / "bin"


PAGE = """\
# The runbook, followed

[The runbook](../deployment.md#runbook) in network namespaces: a server, {nodes} devices
and a spare board on links of {mbit:.0f} Mbit/s, with TLS, tickets and the gate. One run
of Caesar goes through all of it; after each step it is resumed for {rounds} rounds, in
which every device trains, or the script ends with an error. In the first of them a
device may say that it needs a whole model, which it has in the second; the column
"lost" counts these. Begun with commit `{old}`, whose states are of format 4.

| step | | s | kB down to each device, first round after | lost | accuracy |
| --- | --- | --: | --- | --: | --: |
{rows}

Seconds are those of the step and of its two rounds, all on one machine; restoring has
two more rounds and a rotated key before the server is killed.

{environment}
"""


def main() -> None:
    """Follow the runbook and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--old", default=OLD, help="older commit (%(default)s)")
    parser.add_argument("--home", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    rows = []
    with (
        old_environment(options.old, options.home.absolute()) as old,
        Fleet(home=options.home) as fleet,
    ):
        fleet.old = old
        run = Run(fleet)
        for name, step in STEPS.items():
            began = time.monotonic()
            try:
                told = step(fleet, run)
                came = run.go_on()
            except (RunbookError, LabError) as err:
                raise SystemExit(f"{name}: {err}") from err
            rows.append(
                f"| {name} | {told} | {time.monotonic() - began:.0f} | {came} |"
            )
            print(rows[-1], flush=True)
    TABLE.write_text(
        PAGE.format(
            nodes=NODES,
            mbit=MBIT,
            rounds=ROUNDS,
            old=options.old,
            rows="\n".join(rows),
            environment=describe(
                "sudo python benchmarks/runbook.py --home FOLDER", ("flwr", "torch")
            ),
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
