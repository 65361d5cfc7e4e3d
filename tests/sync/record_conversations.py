"""Records the conversations in `tests/sync/conversations`, each into a file once.

``python -m tests.sync.record_conversations`` writes those that are not there yet, and
adds their digests to the list. One that is there is never written again: other
implementations were compared with it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flwr_caesar.codec.contract.layout import FLOAT_DTYPES
from flwr_caesar.flower import act_in_run
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.server import Verdict
from flwr_caesar.transport import arrays_to_record

from .conversation import Draws, Replay
from .conversation_json import (
    FORMAT,
    content_from_json,
    content_to_json,
    tensors_to_json,
)
from .conversation_server import RECORD, Arrays, Server, numbers

FOLDER = Path(__file__).parent / "conversations"
DIGESTS = FOLDER / "digests.txt"
SECONDS = [3.25, 0.5, 0.0625, 1.5]


def first_model() -> Arrays:
    """Return a model of all kinds of tensors that a few hundred numbers can hold."""
    rng = np.random.default_rng(15)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    return {
        "conv.weight": normal(3, 2, 3, 3),
        "fc.weight": normal(16, 20),
        "fc.bias": normal(16),
        "norm.variance": np.abs(normal(6)) + np.float32(0.001),
        "norm.count": np.array(3, np.int64),
        "scale": normal(5).astype(np.float16),
    }


class Talk:
    """One conversation while it is recorded.

    Parameters
    ----------
    name, about : str
        Of its file, and what it shows in a sentence.
    method : ServerMethod
        Of the server.
    folder : Path
        For the devices' stores.
    model : mapping of str to ndarray, optional
        To begin with.
    initial : mapping of str to ndarray, optional
        What the devices' app starts from; `None` if it does not say.
    can : mapping of str to mapping, optional
        What devices can that do not know everything, by store.
    needs : sequence of str
        What a device needs beside what every device has.
    """

    def __init__(
        self,
        name: str,
        about: str,
        method: ServerMethod,
        folder: Path,
        *,
        model: Arrays | None = None,
        initial: Arrays | None = None,
        can: Mapping[str, Any] | None = None,
        needs: Sequence[str] = (),
    ) -> None:
        self.server = Server(model or first_model(), method, name)
        self.steps: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {
            "format": FORMAT,
            "about": about,
            "lineage": f"{self.server.lineage:016x}",
            **({"initial": tensors_to_json(initial)} if initial else {}),
            **({"can": can} if can else {}),
            **({"needs": list(needs)} if needs else {}),
            "steps": self.steps,
        }
        self._name = name
        self._fresh = numbers(f"device/{name}")
        self._replay = Replay(folder, self.found)

    def trained(self, model: Arrays | None = None) -> Arrays:
        """Return what training makes of a model; another one in each step."""
        rng = np.random.default_rng([len(self.steps), len(self._name)])
        found = {}
        for name, array in (model or self.server.held).items():
            if array.dtype.name in FLOAT_DTYPES:
                change = rng.normal(0, 0.03, array.shape).astype(np.float32)
                array = np.asarray(array.astype(np.float32) + change, array.dtype)
            else:
                array = np.asarray(array + 1)
            found[name] = np.abs(array) if name == "norm.variance" else array
        return found

    def ask(
        self,
        store: str,
        content: RecordDict,
        *,
        kind: str = "train",
        trained: Arrays | None = None,
        fails: str = "",
        extra: Mapping[str, ArrayRecord | MetricRecord | ConfigRecord] | None = None,
        **given: Any,
    ) -> RecordDict | None:
        """Let a device handle a message; return its reply, None for an error.

        `given` are fields of the step: `full`, `board`, `labels`, `about`.
        """
        metrics = MetricRecord(
            {"num-examples": 10 + len(self.steps), "loss": 0.5 / (1 + len(self.steps))}
        )
        returns = RecordDict({"metrics": metrics, **(extra or {})})
        if kind == "train":
            arrays = arrays_to_record(trained or self.trained())
            returns = RecordDict({RECORD: arrays, **dict(returns.items())})
        app = {"fails": fails} if fails else {"returns": content_to_json(returns)}
        step: dict[str, Any] = {
            "do": "ask",
            "store": store,
            "kind": kind,
            "message": content_to_json(content),
            "app": app,
            "seconds": SECONDS,
            **given,
        }
        draws = Draws(None, self._fresh)
        expect = self._replay.ask(step, lineage=self.server.lineage, draws=draws)
        if "app" not in expect:
            del step["app"]
        self.steps.append({**step, "draws": draws.to_json(), "expect": expect})
        return content_from_json(expect["reply"]) if "reply" in expect else None

    def copy(self, source: str, target: str) -> None:
        """Copy a device's store."""
        self._replay.copy(source, target)
        self.steps.append({"do": "copy", "from": source, "to": target})

    def delete(self, store: str) -> None:
        """Delete a device's store."""
        self._replay.delete(store)
        self.steps.append({"do": "delete", "store": store})

    def round(
        self,
        stores: Mapping[int, str],
        *,
        train: bool = True,
        lose: tuple[int, ...] = (),
        close: bool = True,
        plans: Any = None,
        config: Mapping[str, Any] | None = None,
        max_residual_age: int = 0,
        **given: Any,
    ) -> dict[int, Verdict]:
        """Run a phase; the replies of the nodes in `lose` do not arrive."""
        kind = "train" if train else "evaluate"
        verdicts = {}
        asked = self.server.ask(
            list(stores),
            train=train,
            plans=plans,
            config=config,
            max_residual_age=max_residual_age,
        )
        for node, content in asked.items():
            reply = self.ask(stores[node], content, kind=kind, **given)
            if reply is not None and node not in lose:
                verdicts[node] = self.server.hear(node, reply)
        if close:
            self.server.close()
        return verdicts

    def backup(self) -> MemoryLedger:
        """Return the server's ledger as it is now."""
        return self.server.ledger.copy()


Scenario = Callable[[Path], Talk]


def record(scenario: Scenario) -> bytes:
    """Return the file of a scenario."""
    act_in_run(1)
    with tempfile.TemporaryDirectory() as folder:
        talk = scenario(Path(folder))
    return (json.dumps(talk.found, indent=1) + "\n").encode()


def read_digests() -> dict[str, str]:
    """Return the digests of the files by name."""
    lines = DIGESTS.read_text().splitlines() if DIGESTS.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


def main() -> None:
    """Record what is not there yet."""
    # They import this module.
    from . import (
        conversations_of_faults,
        conversations_of_messages,
        conversations_of_methods,
        conversations_of_one_device,
    )

    FOLDER.mkdir(exist_ok=True)
    known = read_digests()
    for scenario in (
        *conversations_of_one_device.SCENARIOS,
        *conversations_of_faults.SCENARIOS,
        *conversations_of_methods.SCENARIOS,
        *conversations_of_messages.SCENARIOS,
    ):
        name = scenario.__name__.replace("_", "-") + ".json"
        if name in known:
            continue
        data = record(scenario)
        (FOLDER / name).write_bytes(data)
        with DIGESTS.open("a") as digests:
            digests.write(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        print(f"{name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
