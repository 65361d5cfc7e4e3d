"""The run folder: what a finished run leaves behind, written while it goes on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from flwr_caesar.records import PhaseProgress, RoundRecord
from flwr_caesar.results.files import (
    DEVICES,
    EVENTS,
    MODEL,
    ROUNDS,
    SUMMARY,
    GrowingCsv,
    write_now,
    write_whole,
)
from flwr_caesar.results.rows import device_rows, round_row
from flwr_caesar.results.versions import machine, versions
from flwr_caesar.runner.lock import SERVER, held
from flwr_caesar.runner.text import whole_rows
from flwr_caesar.tasks.errors import ConfigError

CONFIG = "config.yaml"
OVERRIDES = "overrides.yaml"
LOG = "flower.log"
CHECKPOINT = "checkpoint"
_SEGMENT = "config-{}.yaml"
_PATIENCE = 30.0


def require_new(path: Path, spec: Mapping[str, Any]) -> None:
    """Require that a run that is not resumed has a folder of its own.

    Raises
    ------
    ConfigError
        If the folder has the configuration of another run: its checkpoint would be gone
        on from under these settings.
    """
    if not spec.get("resume") and (path / CONFIG).exists():
        raise ConfigError(
            "hydra.run.dir",
            f"{path} has a run already: go on with it by resume={path}, or choose "
            "another folder",
        )


def configurations(path: Path) -> list[Path]:
    """Return the configurations with which a folder's rounds were trained, in order.

    ``config.yaml`` is the first; a resumed run adds ``config-2.yaml`` and so on.
    """
    first = [path / CONFIG] if (path / CONFIG).is_file() else []
    numbers = itertools.count(len(first) + 1)
    more = (path / _SEGMENT.format(number) for number in numbers)
    return [*first, *itertools.takewhile(Path.is_file, more)]


class RunFolder:
    """Writes a run's files in the server's process.

    Parameters
    ----------
    path : Path
        Created if it is not there.
    spec : mapping
        The resolved configuration. With ``resume`` set, nothing that the folder has
        changes before the first new round. Rounds after the checkpoint are written
        again then, and the configuration of this segment beside the earlier ones.

    Attributes
    ----------
    checkpoint : Path
        Where the strategy keeps what a resumed run needs.

    Raises
    ------
    ConfigError
        If another run has the folder and is not resumed.
    """

    def __init__(self, path: Path, spec: Mapping[str, Any]) -> None:
        from omegaconf import OmegaConf

        require_new(path, spec)
        self.path = path
        self._spec = spec
        self._rounds: list[dict[str, Any]] = []
        self._devices: list[dict[str, Any]] = []
        self._round_file = GrowingCsv(path / ROUNDS)
        self._device_file = GrowingCsv(path / DEVICES)
        self._records: list[RoundRecord] = []
        self._bytes_up = self._bytes_down = self._raw_bytes = self._dropped = 0
        self._has_clock = spec["profile"]["devices"] is not None
        self._virtual = 0.0
        self._begun = False
        self._started = time.monotonic()
        self.checkpoint = path / CHECKPOINT
        self._config = OmegaConf.to_yaml(dict(spec))
        self._resumed = bool(spec.get("resume"))
        path.mkdir(parents=True, exist_ok=True)
        if self._resumed:
            self._rounds = [*whole_rows(path / ROUNDS)]
            self._devices = [*whole_rows(path / DEVICES)]
        else:
            write_whole(path / CONFIG, self._config)
        (path / EVENTS).write_text("", encoding="utf-8")

    @classmethod
    @contextmanager
    def open(cls, path: Path, spec: Mapping[str, Any]) -> Iterator[RunFolder]:
        """Have a run's folder to oneself; an error is told to the runner.

        Parameters
        ----------
        path, spec
            As of the class.

        Raises
        ------
        ConfigError
            If another run has the folder and is not resumed, or another server writes
            it.
        """
        path.mkdir(parents=True, exist_ok=True)
        # The server of a command that was killed may be about to end.
        with held(path, SERVER, seconds=_PATIENCE):
            folder = cls(path, spec)
            try:
                yield folder
            except Exception as error:
                with suppress(OSError):  # it may be what failed
                    folder.event("failed", reason=f"{type(error).__name__}: {error}")
                raise

    def on_record(self, record: RoundRecord) -> None:
        """Take one phase of a round; give this to the strategy."""
        if self._resumed:
            self._open_segment(record.server_round)
        self._records.append(record)
        self._bytes_up += record.bytes_up
        self._bytes_down += record.bytes_down
        self._dropped += len(record.dropped)
        self._raw_bytes += record.raw_bytes_up + record.raw_bytes_down
        self._devices += device_rows(record)
        self._device_file.write(self._devices)

    def on_progress(self, progress: PhaseProgress) -> None:
        """Say how far a phase is; give this to the strategy, too."""
        write_now(self.path, progress)

    def on_evaluation(self, server_round: int, *, accuracy: float, loss: float) -> None:
        """Close a round: the server has tested its model. Round 0 is the initial one.

        Parameters
        ----------
        server_round : int
            Counted from 1; 0 before training, from which time is counted.
        accuracy, loss : float
            On the test data; accuracy in [0, 1].

        Raises
        ------
        RuntimeError
            If a resumed run begins anew although the folder has rounds.
        """
        if not self._begun:
            self._begin_after(server_round)
            if any(int(row["round"]) == server_round for row in self._rounds):
                return  # tested before the run was resumed
        records = [r for r in self._records if r.server_round == server_round]
        self._records.clear()
        times = [r.virtual_seconds for r in records if r.virtual_seconds is not None]
        self._virtual += sum(times)
        row = round_row(
            server_round,
            records,
            {"accuracy": accuracy, "loss": loss},
            {
                "total_bytes_up": self._bytes_up,
                "total_bytes_down": self._bytes_down,
                "total_raw_bytes": self._raw_bytes,
            },
            seconds=time.monotonic() - self._started,
        )
        if self._has_clock:
            row["virtual_seconds"] = sum(times)
            row["total_virtual_seconds"] = self._virtual
        self._rounds.append(row)
        self._round_file.write(self._rounds)
        self.event("round", **row)

    def _begin_after(self, done: int) -> None:
        """Keep what was written up to a round; time goes on from there."""
        # Where no reply counted yet, there is nothing to go on from, and nothing lost.
        rounds = {int(row["round"]) for row in self._rounds} - {0}
        counted = {int(row["round"]) for row in self._devices if not row["dropped"]}
        if done == 0 and rounds & counted:
            raise RuntimeError(
                f"{self.path} has rounds but no checkpoint to go on from; it is left "
                "as it was"
            )
        self._begun = True
        self._rounds = [row for row in self._rounds if int(row["round"]) <= done]
        self._devices = [row for row in self._devices if int(row["round"]) <= done]
        self._device_file = GrowingCsv(self.path / DEVICES)
        last = self._rounds[-1] if self._rounds else {}
        self._started = time.monotonic() - float(last.get("seconds", 0.0))
        self._bytes_up = sum(int(row["bytes_up"]) for row in self._devices)
        self._bytes_down = sum(int(row["bytes_down"]) for row in self._devices)
        self._raw_bytes = int(last.get("total_raw_bytes") or 0)
        self._dropped = sum(bool(row["dropped"]) for row in self._devices)
        self._virtual = float(last.get("total_virtual_seconds", 0.0))

    def _open_segment(self, first: int) -> None:
        """Write down with which settings a resumed run trains from a round on."""
        self._resumed = False
        (self.path / SUMMARY).unlink(missing_ok=True)  # of the rounds before
        number = len(configurations(self.path)) + 1
        text = f"# From round {first} on.\n{self._config}"
        write_whole(self.path / _SEGMENT.format(number), text)

    def event(self, kind: str, **values: Any) -> None:
        """Append a line to ``events.jsonl``, which the runner reads while it grows."""
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **values}) + "\n")

    def finish(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Write the final model and the summary, and return the summary.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            The final model.
        """
        contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        save_file(contiguous, self.path / MODEL)
        last = self._rounds[-1]
        summary = {
            "strategy": self._spec["strategy"]["name"],
            "rounds": int(last["round"]),
            "accuracy": float(last["accuracy"]),
            "loss": float(last["loss"]),
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "raw_bytes": self._raw_bytes,
            "seconds": round(time.monotonic() - self._started, 3),
            "dropped": self._dropped,
            "seconds_server": _total(self._rounds, "seconds_server"),
            "seconds_device": _total(self._devices, "seconds_encode", "seconds_decode"),
            "clock": "virtual" if self._has_clock else "measured",
            "virtual_seconds": self._virtual if self._has_clock else None,
            "waiting_mean": self._mean_waiting(),
            "waiting_max": max(float(row["waiting_max"]) for row in self._rounds),
            "target": self._target(),
            "seed": self._spec["seed"],
            "parameters": sum(array.size for array in arrays.values()),
            "machine": machine(),
            "versions": versions(),
        }
        text = json.dumps(summary, indent=2) + "\n"
        write_whole(self.path / SUMMARY, text)
        self.event("finished")
        return summary

    def _mean_waiting(self) -> float:
        """Return the seconds that a device waits for the end of a training phase."""
        waits = [
            float(row["waiting"])
            for row in self._devices
            if row["phase"] == "train" and float(row["seconds_round_trip"]) > 0
        ]
        return sum(waits) / len(waits) if waits else 0.0

    def _target(self) -> dict[str, Any] | None:
        """Return what it took to the first round that was accurate enough."""
        target = self._spec["target_accuracy"]
        if target is None:
            return None
        found: dict[str, Any] = {"accuracy": target, "round": None}
        for row in self._rounds:
            if float(row["accuracy"]) >= target:
                found |= {
                    "round": int(row["round"]),
                    "bytes_up": int(row["total_bytes_up"]),
                    "bytes_down": int(row["total_bytes_down"]),
                    "seconds": float(row["seconds"]),
                }
                if self._has_clock:
                    found["virtual_seconds"] = float(row["total_virtual_seconds"])
                break
        return found


def _total(rows: list[dict[str, Any]], *keys: str) -> float:
    return round(sum(float(row[key]) for row in rows for key in keys), 6)
