"""Devices on a JVM beside SuperNodes in one Caesar run, on a real SuperLink."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.deploy.lab import Lab
from flwr_caesar.deploy.network import why_not
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.server_folder import CONNECTION as FLEET
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.run import run
from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.tasks import load_partition
from flwr_caesar.tasks.models import build_model
from tests.servers.test_kills import APP, COMMAND, assert_the_law

from .jvm import Jvm
from .kotlin_node import KotlinNode, write_examples

pytestmark = pytest.mark.servers

DENSE = get_codec("dense")
NODES, PYTHON_NODES = 4, 2
MBIT = 20.0
ROUNDS = 3
RUN_SECONDS = 900.0


def arguments(nodes: int, rounds: int, connection: str) -> list[str]:
    return [
        *("strategy=caesar", "model=mlp", "data.partition.kind=iid"),
        *("train.epochs=1", f"rounds={rounds}", f"connection={connection}"),
        *("federation=local", f"federation.num_supernodes={nodes}"),
    ]


def specification(nodes: int, rounds: int) -> dict[str, Any]:
    return compose(arguments(nodes, rounds, CONNECTION))


def write_partition(path: Path, spec: dict[str, Any], part: int, parts: int) -> Path:
    examples = load_partition(spec["data"], part, parts, spec["seed"])
    write_examples(path, examples.x, examples.y, spec["data"]["num_classes"])
    return path


def initial_model(spec: dict[str, Any]) -> dict[str, Any]:
    model = build_model(spec["model"], spec["seed"]).state_dict()
    return {name: tensor.numpy() for name, tensor in model.items()}


def accuracies(folder: Path) -> list[float]:
    rounds = csv.DictReader((folder / "rounds.csv").open())
    return [float(row["accuracy"]) for row in rounds]


def test_a_phone_and_a_supernode_train_together(
    jvm: Jvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specification(2, 2)
    examples = write_partition(tmp_path / "examples", spec, 1, 2)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with SuperLink(simulation=False) as link:
        monkeypatch.setenv("FLWR_HOME", str(link.home))
        link.start_supernode(0, 2)
        server = f"http://127.0.0.1:{link.port}"
        with KotlinNode(
            tmp_path / "phone", examples, server, initial=initial_model(spec)
        ) as phone:
            summary = run(spec, tmp_path)
            assert summary is not None
            assert summary["dropped"] == 0, phone.log
    assert accuracies(tmp_path)[-1] > 0.5
    devices = list(csv.DictReader((tmp_path / "devices.csv").open()))
    assert len({row["node_id"] for row in devices}) == 2


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a server behind its gate, and a link for each device."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("lab")
    with Lab([MBIT] * NODES, home=home) as lab:
        lab.start_server()
        tickets = home / "tickets"
        lab.enrol("ticket", "d-01", "--count", str(NODES), "--output", str(tickets))
        yield lab


def ticket(lab: Lab, part: int) -> Path:
    return lab.home / "tickets" / f"d-{1 + part:02d}.ticket"


def start_python_node(lab: Lab, part: int, work: Path) -> Path:
    """Start a device in Python; return its folder of states."""
    link = lab.links[part]
    joined = lab.join(link, str(ticket(lab, part)))
    assert joined.returncode == 0, joined.stderr
    path = lab.device_folder(link) / "node.toml"
    node = replace(NodeFile.load(path), state_dir=work / f"device-{part}")
    node = replace(node, node_config={**node.node_config, "work-dir": str(work)})
    node.save(path)
    lab.start_node(link)
    return work / f"device-{part}"


def test_phones_and_supernodes_behind_the_gate_lose_nothing(
    jvm: Jvm, lab: Lab, tmp_path: Path
) -> None:
    """TLS, node authentication, tickets; one phone is killed in the first round."""
    spec = specification(NODES, ROUNDS)
    folder = tmp_path / "run"
    states = [start_python_node(lab, part, tmp_path) for part in range(PYTHON_NODES)]
    phones = []
    for part in range(PYTHON_NODES, NODES):
        examples = write_partition(tmp_path / f"examples-{part}", spec, part, NODES)
        phone = KotlinNode(
            tmp_path / f"phone-{part}",
            examples,
            str(ticket(lab, part)),
            delay=60 if not phones else 0,
            initial=initial_model(spec),
            before=["ip", "netns", "exec", lab.links[part].namespace],
        )
        phones.append(phone)
    with phones[0], phones[1]:
        lab.wait_online(NODES)
        command = [executable("python"), "-P", "-c", COMMAND, str(APP), "run"]
        command += arguments(NODES, ROUNDS, FLEET)
        process = lab.spawn("app", lab.server, *command, f"hydra.run.dir={folder}")
        phones[0].wait_handled("train", lambda: process.poll() is None)
        phones[0].kill()  # its state is durable, and the reply has not left
        phones[0].start(delay=0)
        assert process.wait(RUN_SECONDS) == 0, lab.log("app") + phones[0].log
        lab.end("app")
    found = accuracies(folder)
    assert found[-1] > 0.8 > found[0]
    # The app of the SuperNodes knows no first model, so they ask for it in round 1.
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dropped"] == PYTHON_NODES, phones[0].log + phones[1].log
    with SqliteLedger(folder / "checkpoint") as ledger:
        head = ledger.head()
        assert head is not None
        for part, place in enumerate(states):
            with FolderStore(place) as store:
                state = store.load(head.lineage)
            assert state is not None
            device = device_id(state.token)
            row = ledger.devices([device])[device]
            assert len(row.applied) == ROUNDS - 1
            assert_the_law(tmp_path, part, state, row)
        for phone in phones:
            require_law_of_phone(jvm, phone, head.lineage, ledger)


def require_law_of_phone(
    jvm: Jvm, phone: KotlinNode, lineage: int, ledger: SqliteLedger
) -> None:
    """All that it computed was applied, waits, or is left over."""
    folder = str(phone.folder / "states")
    reply = jvm.ask("state", folder=folder, lineage=f"{lineage:016x}")
    state = reply.values["state"]
    model, residual, *waiting = reply.blobs
    known = CodecState(update_layout(Layout.of(DENSE.decode(model)[0])))
    device = device_id(bytes.fromhex(state["token"]))
    row = ledger.devices([device])[device]
    assert len(row.applied) == ROUNDS

    def decoded(frame: bytes) -> dict[str, Any]:
        return get_codec(inspect_frame(frame).config).decode(frame, known)[0]

    journal = phone.folder / "journal"
    computed = [
        DENSE.decode(path.read_bytes())[0] for path in journal.glob("computed-*")
    ]
    assert len(computed) == ROUNDS  # the one that was killed trained once
    parts = [decoded((journal / f"sent-{i:016x}").read_bytes()) for i in row.applied]
    parts += [
        decoded(frame)
        for frame, pending in zip(waiting, state["pending"], strict=True)
        if int(pending["id"]) not in row.applied
    ]
    parts.append(DENSE.decode(residual)[0])
    for spec in known.layout.tensors:
        total = sum(update[spec.name].astype(np.float64) for update in computed)
        found = sum(part[spec.name].astype(np.float64) for part in parts)
        largest = np.abs(total).max()
        assert largest > 0
        np.testing.assert_allclose(found, total, rtol=0, atol=1e-5 * largest)
