"""What a person sees of a run on a terminal, and elsewhere."""

from __future__ import annotations

import io
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg
from rich.console import Console

from flwr_caesar.clients import compression_mod
from flwr_caesar.records import PhaseProgress
from flwr_caesar.results.files import NOW, write_now
from flwr_caesar.runner.progress import Progress, round_line
from flwr_caesar.runner.terminal import Terminal, draw, read_now
from flwr_caesar.strategies import TopK

from ..strategies.apps import initial_model, numpy_app
from ..strategies.local_grid import LocalGrid

CLOCK = datetime(2026, 1, 1, 14, 0)


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "accuracy": 0.1 * number,
        "total_bytes_up": 1_000 * number,
        "total_bytes_down": 1_000 * number,
        "total_raw_bytes": 50_000 * number,
        "devices": 10,
        "dropped": 0,
        "seconds": 30.0 * number,
        **more,
    }


def followed(*events: dict[str, Any], rounds: int | None = 10) -> Progress:
    progress = Progress("caesar", rounds, lambda line: None)
    for one in events:
        progress.take(one, 0.0)
    return progress


def drawn(progress: Progress, now: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(draw(progress, now, CLOCK))
    return out.getvalue()


def test_a_table_has_what_was_sent_and_when_it_ends() -> None:
    text = drawn(followed(*map(event, range(1, 5))), {})
    last = next(line for line in text.splitlines() if "4/10" in line)
    assert last.split() == [
        "4/10",
        "40.0",
        "%",
        "4",
        "kB",
        "4",
        "kB",
        "25.0",
        "10",
        "0",
    ]
    # Six rounds of thirty seconds are left.
    assert "ends about 14:03 (3 min)" in text


def test_a_table_says_who_is_waited_for_and_why_some_were_dropped() -> None:
    now = {
        "round": 2,
        "phase": "train",
        "asked": 10,
        "answered": 4,
        "refused": {"too [bold]cold[/bold]": 2, "late": 1},
    }
    text = drawn(followed(event(1)), now)
    assert "in round 2/10; train: 4 answered, 6 waiting" in text
    assert "3 dropped, as: too [bold]cold[/bold]" in text
    # What is told of a round that is over is not shown of the next.
    assert "waiting" not in drawn(followed(event(1), event(2)), now)


def test_without_accuracy_or_a_number_of_rounds_nothing_is_made_up() -> None:
    one = event(1, accuracy=None, total_raw_bytes=0)
    text = drawn(followed(one, event(2), rounds=None), {})
    assert "ends about" not in text
    assert (
        next(line for line in text.splitlines() if line.strip()[:1] == "1").split()[1]
        == "–"
    )
    assert "accuracy" not in round_line("caesar", None, one)
    assert "fewer" not in round_line("caesar", None, one)


def test_a_table_says_what_is_waited_for_while_nothing_happens() -> None:
    progress = followed(event(1))
    progress.quiet(1.0, lambda: "never asked")
    progress.quiet(40.0, lambda: "Ray [bold]starts[/bold]")
    assert "39 s without news; Flower says: Ray [bold]starts" in drawn(progress, {})
    progress.take(event(2), 41.0)
    assert "without news" not in drawn(progress, {})


def test_elsewhere_it_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say = Terminal()
    assert not say.console.is_terminal
    say("one line [red]of text[/red]")
    assert capsys.readouterr().out == "one line [red]of text[/red]\n"


def test_on_a_terminal_the_table_stays_in_place(tmp_path: Path) -> None:
    out = io.StringIO()
    say = Terminal(Console(file=out, force_terminal=True, width=120))
    progress = followed(event(1))
    with say.following(progress, tmp_path) as screen:
        screen.show(at_once=True)
        progress.take(event(2), 0.0)
        screen.show(at_once=True)
    text = out.getvalue()
    assert "2/10" in text
    assert "\x1b[1A" in text  # the cursor went up again


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"round": "x"}', '{"round": 1}', "\0", '{"round": 1e999}'],
)
def test_what_is_no_progress_is_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / NOW).write_text(text, encoding="utf-8")
    assert read_now(tmp_path) == {}


def test_progress_is_told_while_replies_arrive(tmp_path: Path) -> None:
    random.seed(0)
    told: list[PhaseProgress] = []
    strategy = TopK(FedAvg(fraction_evaluate=0.0), on_progress=told.append)
    grid = LocalGrid(
        numpy_app(mods=[compression_mod]),
        3,
        tamper=lambda reply, node: None if node == 2 else reply,
    )
    strategy.start(grid, initial_model(), num_rounds=1, timeout=0.01)
    first, last = told[0], told[-1]
    assert (first.phase, first.asked, first.answered) == ("train", 3, 0)
    assert (last.asked, last.answered, last.waiting) == (3, 2, 1)
    write_now(tmp_path, last)
    assert read_now(tmp_path)["answered"] == 2
