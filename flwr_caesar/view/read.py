"""A run folder as plain values for a page, whatever its files hold."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr_caesar.results.files import DEVICES, EVENTS, NOW, ROUNDS, SUMMARY
from flwr_caesar.runner.folder import configurations
from flwr_caesar.runner.terminal import read_now
from flwr_caesar.runner.text import whole_lines
from flwr_caesar.view.devices import devices_of, refusals_of
from flwr_caesar.view.rows import last_rows, number, text, whole

_EVENT_BYTES = 1 << 18
_MOST_ROUNDS = 5_000
_MOST_EVENTS = 200
_SETTINGS_CHARS = 20_000
_FILES = (EVENTS, SUMMARY, ROUNDS, DEVICES, NOW)


def stamp(folder: Path) -> str:
    """Return a text that changes when a file of the run does."""
    found = []
    for name in _FILES:
        with contextlib.suppress(OSError):
            status = (folder / name).stat()
            found.append(f"{status.st_mtime_ns:x}.{status.st_size:x}")
    return "-".join(found) or "empty"


def read_run(folder: Path) -> dict[str, Any]:
    """Return what a page shows of a run.

    Files may be torn, missing, of another version or hostile: what cannot be read as
    what it should be is left out.

    Parameters
    ----------
    folder : Path
        A run in progress, a finished one or a resumed one.
    """
    events = _events(folder)
    rounds = [row for raw in last_rows(folder / ROUNDS) if (row := _round(raw))]
    rounds = rounds[-_MOST_ROUNDS:]
    rows = last_rows(folder / DEVICES)
    latest = max((row["round"] for row in rounds), default=0)
    summary = _object(folder / SUMMARY)
    settings = _settings(folder)
    return {
        "name": folder.resolve().name,
        "strategy": _strategy(settings, summary, events),
        "planned": _planned(settings, events),
        "state": _state(events, summary, rounds, folder),
        "quiet": _quiet(folder),
        "rounds": rounds,
        "now": read_now(folder),
        "devices": devices_of(rows, latest),
        "events": _told(events, refusals_of(rows), settings)[-_MOST_EVENTS:],
        "settings": [{"file": name, "text": body} for name, body, _ in settings],
        "summary": _shown(summary),
        "stamp": stamp(folder),
    }


def _round(raw: Mapping[str, str]) -> dict[str, Any] | None:
    server_round = whole(raw.get("round"))
    if server_round is None:
        return None
    names = (
        "accuracy",
        "loss",
        "bytes_up",
        "bytes_down",
        "total_bytes_up",
        "total_bytes_down",
        "total_raw_bytes",
        "devices",
        "dropped",
        "waiting_mean",
        "seconds_server",
        "seconds",
        "virtual_seconds",
        "total_virtual_seconds",
    )
    return {"round": server_round, **{name: number(raw.get(name)) for name in names}}


def _events(folder: Path) -> list[dict[str, Any]]:
    found = []
    for line in whole_lines(folder / EVENTS, most=_EVENT_BYTES).split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                found.append(event)
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _settings(folder: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return name, text and content of each configuration of a run."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    found: list[tuple[str, str, Mapping[str, Any]]] = []
    for path in configurations(folder):
        body = ""
        content: Mapping[str, Any] = {}
        with contextlib.suppress(
            OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError
        ):
            body = path.read_text(encoding="utf-8", errors="replace")[:_SETTINGS_CHARS]
            read = OmegaConf.to_container(OmegaConf.create(body))
            if isinstance(read, dict):
                content = {str(key): value for key, value in read.items()}
        found.append((path.name, body, content))
    return found


def _strategy(
    settings: Sequence[tuple[str, str, Mapping[str, Any]]],
    summary: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
) -> str:
    for _, _, content in reversed(settings):
        group = content.get("strategy")
        if isinstance(group, dict) and group.get("name"):
            return text(group["name"])
    names = [event.get("strategy") for event in events if event["event"] == "started"]
    return text(summary.get("strategy") or next(iter(names[-1:]), "") or "run")


def _planned(
    settings: Sequence[tuple[str, str, Mapping[str, Any]]],
    events: Sequence[Mapping[str, Any]],
) -> int | None:
    told = [event.get("rounds") for event in events if event["event"] == "started"]
    told += [content.get("rounds") for _, _, content in reversed(settings)]
    return next((n for n in told if isinstance(n, int) and n > 0), None)


def _state(
    events: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    folder: Path,
) -> str:
    kinds = [event["event"] for event in events]
    if kinds[-1:] == ["failed"]:
        return "failed"
    if summary and (not kinds or kinds[-1] == "finished"):
        return "finished"
    return "running" if rounds or (folder / NOW).is_file() else "starting"


def _quiet(folder: Path) -> float | None:
    """Return the seconds since a file of the run changed last."""
    times = []
    for name in _FILES:
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(time.time() - max(times), 0.0) if times else None


def _told(
    events: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, Any]],
    settings: Sequence[tuple[str, str, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return what happened, in words, oldest first."""
    told: list[dict[str, Any]] = []
    for name, body, _ in settings[1:]:
        first = body.partition("\n")[0].removeprefix("# ").rstrip(".")
        told.append({"kind": "gone on", "text": text(f"{first}: settings of {name}")})
    told += [dict(one) for one in refusals]
    for event in events:
        if event["event"] == "failed":
            told.append({"kind": "failed", "text": text(event.get("reason"))})
        elif event["event"] == "finished":
            told.append({"kind": "finished", "text": "all files are written"})
    return told


def _shown(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return a summary as texts, nested ones by dotted keys."""
    found: dict[str, str] = {}
    for key, value in summary.items():
        if isinstance(value, dict):
            found |= {text(f"{key}.{k}"): text(v) for k, v in value.items()}
        elif not isinstance(value, float) or math.isfinite(value):
            found[text(key)] = text(value)
    return found
