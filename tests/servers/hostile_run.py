"""Honest devices and a hostile one on a real SuperLink: one attack in each round.

    python -m tests.servers.hostile_run    every attack, and a table of what met it

The nodes speak the Fleet protocol themselves. Honest ones run the mod and an app, with
their state in folders, in threads of this process, so that a round takes a second; the
ServerApp is run by Flower, with our strategies as they are.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

from flwr_caesar.faults.app import FaultApp
from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable
from flwr_caesar.transport import Plan

from .attacks import ENDLESS, MORE, OTHER_EPOCH, WORST, Attack, Scene
from .raw_node import RawNode

APP = Path(__file__).parent / "hostile_app"
HONEST = 3
# In some rounds the node cannot attack, as too many uploads of its own are in doubt.
SPARE_ROUNDS, ATTACKS_PER_SPARE_ROUND = 2, 3
# Nothing waits this long unless it is broken; a busy machine may be very slow.
PATIENCE = 600.0
OPTIONS: dict[str, dict[str, Any]] = {
    "Caesar": {},
    "FedComLoc": {"lr": 0.05, "p": 0.5, "density": 0.3, "exact_below": 64},
}


@dataclass(frozen=True)
class Round:
    """What became of one round.

    Parameters
    ----------
    strategy : str
        That ran it.
    attack : Attack
        Of the hostile node.
    honest : bool
        Whether all honest devices' replies were used, or answered the settling.
    reason : str
        Why the hostile node's reply was dropped; empty if it was used.
    """

    strategy: str
    attack: Attack
    honest: bool
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Parameters
    ----------
    rounds : list of Round
        One for each attack that had a round.
    returncode : int
        Of the run.
    stopped : str
        Which process ended; empty if none did.
    log : str
        What the ServerApp printed.
    errors : list of str
        What went wrong in the nodes, such as an upload that Flower refuses.
    """

    rounds: list[Round]
    returncode: int
    stopped: str
    log: str
    errors: list[str]


class Device:
    """What an honest device does, and what a hostile one starts from."""

    def __init__(self, number: int, folder: Path) -> None:
        self._number = number
        self._folder = folder
        self._app = FaultApp(number).client

    def work(self, request: Message) -> RecordDict | Error:
        """Return what the app and the mod answer."""
        metadata = request.metadata
        config = {
            "partition-id": self._number,
            "num-partitions": HONEST + 1,
            "state-dir": str(self._folder / f"device-{self._number}"),
        }
        context = Context(
            run_id=metadata.run_id,
            node_id=metadata.dst_node_id,
            node_config=config,
            state=RecordDict(),
            run_config={},
        )
        try:
            return self._app(request, context).content
        except Exception as err:  # as Flower does, the server is told
            return Error(2, f"{type(err).__name__}: {err}")


def run_attacks(
    folder: Path,
    segments: Sequence[tuple[str, Sequence[Attack]]],
    *,
    patience: float = PATIENCE,
) -> Outcome:
    """Let one node attack a strategy after another, with one attack in each round.

    Parameters
    ----------
    folder : Path
        For state and results.
    segments : sequence of tuple of str and sequence of Attack
        A strategy, and the attacks on it. If one of them does not end, the round is
        closed by a quorum of the honest devices.
    patience : float
        Seconds after which the run is ended.
    """
    output, log = folder / "phases.jsonl", folder / "run.log"
    with SuperLink(simulation=False) as link, ExitStack() as stack:
        nodes = [stack.enter_context(RawNode(link.port)) for _ in range(HONEST + 1)]
        hostile, *honest = nodes
        overheard: list[RecordDict] = []
        for number, node in enumerate(honest):
            _serve_honestly(node, Device(number, folder), overheard)
        attacks = [list(each) for _, each in segments]
        begun: list[Attack | None] = []
        _serve_hostilely(hostile, Device(HONEST, folder), attacks, overheard, begun)
        run = _start(link, segments, output, log)
        deadline = time.monotonic() + patience
        while run.poll() is None and time.monotonic() < deadline:
            assert not (failed := [n.errors for n in honest if n.errors]), failed
            time.sleep(0.2)
        stopped = link.stopped or ""
        run.kill()
        run.wait()
        said = log.read_text(errors="replace")
        assert output.exists(), said + link.log.read_text(errors="replace")
        errors = [error for node in nodes for error in node.errors]
    rounds = _rounds(output, begun, hostile.node_id, [n.node_id for n in honest])
    return Outcome(rounds, run.returncode, stopped, said, errors)


def _start(
    link: SuperLink,
    segments: Sequence[tuple[str, Sequence[Attack]]],
    output: Path,
    log: Path,
) -> subprocess.Popen[bytes]:
    told = []
    for strategy, attacks in segments:
        closed = (
            {}
            if all(attack.ends for attack in attacks)
            else {"quorum": HONEST / (HONEST + 1)}
        )
        options = {**OPTIONS[strategy], **closed}
        spare = SPARE_ROUNDS + len(attacks) // ATTACKS_PER_SPARE_ROUND
        rounds = len(attacks) + spare
        told.append({"strategy": strategy, "rounds": rounds, "options": options})
    # A JSON string is also a TOML string.
    config = output.with_name("run.toml")
    config.write_text(
        f"segments = {json.dumps(json.dumps(told))}\nnodes = {HONEST + 1}\n"
        f"output = {json.dumps(str(output))}\n"
    )
    command = [executable("flwr"), "run", str(APP), CONNECTION, "--stream"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*command, "--run-config", str(config)],
            env=link.environment,
            cwd=link.home,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _serve_honestly(node: RawNode, device: Device, overheard: list[RecordDict]) -> None:
    def answer(node: RawNode, request: Message) -> None:
        said = device.work(request)
        node.reply(request, said)
        if isinstance(said, RecordDict) and "arrays" in said:
            overheard.append(said)

    node.serve(answer)


def _serve_hostilely(
    node: RawNode,
    device: Device,
    attacks: Sequence[list[Attack]],
    overheard: list[RecordDict],
    begun: list[Attack | None],
) -> None:
    lineages: list[int] = []
    heard = threading.Event()

    def answer(node: RawNode, request: Message) -> None:
        plan, header = Plan.read(request.content)  # the mod puts plain arrays there
        if header.lineage not in lineages:  # each strategy begins one
            lineages.append(header.lineage)
        left = attacks[lineages.index(header.lineage)]
        good = device.work(request)
        if isinstance(good, Error) or "arrays" not in good or not left:
            if plan.upload:  # its own upload is in doubt: a round without an attack
                begun.append(None)
            node.reply(request, good)
            return
        while not overheard:  # others answer the first request meanwhile
            heard.wait(0.1)
        attack = left.pop(0)
        begun.append(attack)
        attack.act(Scene(node, request, plan, good, list(overheard)))

    node.serve(answer)


def _rounds(
    output: Path,
    begun: Sequence[Attack | None],
    hostile: int,
    honest: Sequence[int],
) -> list[Round]:
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    phases = [line for line in lines if line["phase"] == "train"]
    rounds = []
    for attack, line in zip(begun, phases, strict=False):
        if attack is None:
            continue
        used = set(honest) <= set(line["used"])
        reason = line["dropped"].get(str(hostile), "")
        rounds.append(Round(line["strategy"], attack, used, reason))
    return rounds


def main() -> None:
    """Run every attack and print what met it, see docs/benchmarks/hostile-node.md.

    Numbers in reasons are replaced, as they are others in each run.
    """
    ending = [attack for attack in (*WORST, *MORE) if attack.ends]
    endless = [attack for attack in (*WORST, *ENDLESS) if not attack.ends]
    segments = [("Caesar", ending), ("Caesar", endless), ("FedComLoc", OTHER_EPOCH)]
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_attacks(Path(folder), segments, patience=3 * PATIENCE)
    print("| strategy | attack | honest devices used | what the server said of it |")
    print("| --- | --- | --- | --- |")
    for each in outcome.rounds:
        reason = re.sub(r"\d{4,}", "…", each.reason.replace("|", "/"))[:160]
        used = "all" if each.honest else "NOT ALL"
        print(f"| {each.strategy} | {each.attack.name} | {used} | {reason or 'used'} |")
    count = sum(map(len, (ending, endless, OTHER_EPOCH)))
    ended = outcome.stopped or "none"
    print(f"\n{len(outcome.rounds)} of {count} attacks had a round. ", end="")
    print(f"Processes that ended: {ended}; exit code of the run: {outcome.returncode}.")


if __name__ == "__main__":
    main()
