"""Task by task, what each strategy reached and sent: docs/experiments/index.md.

Reads folders of finished runs, a sweep's or single ones, and writes the tables between
the two marks of the page, and the picture beside it:

    flwr-caesar run experiment=caesar_pydoc strategy=fedavg,caesar
    python benchmarks/tasks.py runs/2026-11-27/*-sweep
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from environment import describe
from omegaconf import OmegaConf

from flwr_caesar.results.pictures import Line, draw_accuracy, figure
from flwr_caesar.runner.outcome import Outcome

PAGE = Path(__file__).parents[1] / "docs/experiments/index.md"
BEGIN, END = "<!-- tasks: begin -->", "<!-- tasks: end -->"
SHARE = 0.98
EARLY = 5
PLAIN = "fedavg"
COLUMNS = 3


@dataclass(frozen=True)
class Run:
    """One finished run: percents and bytes of both ways after each round."""

    task: str
    strategy: str
    seed: int
    accuracy: tuple[float, ...]
    sent: tuple[float, ...]
    device_seconds: float

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run folder; accuracy counts from the initial model on."""
        config = OmegaConf.load(folder / "config.yaml")
        outcome = Outcome.read(folder)
        assert outcome.summary is not None, folder
        rows = [row for row in outcome.rounds if row["accuracy"]]
        return cls(
            f"{config.data.name}, {config.model.name}",
            str(config.strategy.name),
            int(config.seed),
            tuple(100 * float(row["accuracy"]) for row in rows),
            tuple(
                float(row["total_bytes_up"]) + float(row["total_bytes_down"])
                for row in rows
            ),
            float(outcome.summary.get("seconds_device", 0.0)),
        )


def table(task: str, runs: list[Run]) -> list[str]:
    """Return a task's table: a row for each strategy, means over its seeds."""
    by_name: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_name[run.strategy].append(run)
    plain = {run.seed: run for run in by_name[PLAIN]}
    goal = SHARE * statistics.fmean(run.accuracy[-1] for run in plain.values())
    needed = _mean_sent(list(plain.values()), goal)
    rounds = len(runs[0].accuracy) - 1
    lines = [
        f"### {task}",
        "",
        f"{rounds} rounds; the goal is {goal:.1f} %.",
        "",
        f"| strategy | seeds | accuracy, % | to `{PLAIN}` | after {EARLY} rounds "
        "| last 10 rounds | MB both ways | MB to goal | × fewer | device s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, own in by_name.items():
        ends = [run.accuracy[-1] for run in own]
        sent = _mean_sent(own, goal)
        fewer = needed / sent if needed and sent else None
        cells = [
            name,
            str(len(own)),
            f"{statistics.fmean(ends):.2f}"
            + (f" ({min(ends):.2f}–{max(ends):.2f})" if len(ends) > 1 else ""),
            _against(own, plain, lambda run: run.accuracy[-1]),
            _against(own, plain, lambda run: run.accuracy[EARLY]),
            _against(own, plain, lambda run: statistics.fmean(run.accuracy[-10:])),
            f"{statistics.fmean(run.sent[-1] for run in own) / 1e6:.1f}",
            "–" if sent is None else f"{sent / 1e6:.1f}",
            "–" if fewer is None else f"{fewer:.1f}",
            f"{statistics.fmean(run.device_seconds for run in own):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _mean_sent(runs: list[Run], goal: float) -> float | None:
    """Return the mean bytes until the goal; None if a run does not get there."""
    needed = []
    for run in runs:
        reached = [b for a, b in zip(run.accuracy, run.sent, strict=True) if a >= goal]
        if not reached:
            return None
        needed.append(reached[0])
    return statistics.fmean(needed)


def _against(own: list[Run], plain: dict[int, Run], value) -> str:
    """Return the mean difference to plain runs of the same seeds, in points."""
    pairs = [(run, plain[run.seed]) for run in own if run.seed in plain]
    if not pairs or own[0].strategy == PLAIN:
        return "–"
    return f"{statistics.fmean(value(a) - value(b) for a, b in pairs):+.2f}"


def picture(tasks: dict[str, list[Run]], path: Path) -> None:
    """Draw accuracy against megabytes, a panel for each task."""
    columns = min(len(tasks), COLUMNS)
    rows = -(-len(tasks) // columns)
    drawn = figure(5 * columns, 4 * rows)
    panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(tasks) :]:
        axes.remove()
    for axes, (task, runs) in zip(panels, tasks.items(), strict=False):
        lines = []
        for name in dict.fromkeys(run.strategy for run in runs):
            own = [run for run in runs if run.strategy == name]
            sent = np.mean([run.sent[1:] for run in own], axis=0) / 1e6
            lines.append(Line(name, sent, np.array([run.accuracy[1:] for run in own])))
        draw_accuracy(axes, lines, "MB both ways")
        axes.set_title(task)
        axes.set_ylabel("test accuracy, %")
    drawn.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or sweeps of them")
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument(
        "--ran", help="machine and versions, if the runs were elsewhere"
    )
    options = parser.parse_args()
    summaries = [
        file
        for folder in options.folders
        for file in sorted(
            [*folder.glob("summary.json"), *folder.glob("*/summary.json")]
        )
    ]
    tasks: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(
        (Run.read(file.parent) for file in summaries),
        key=lambda run: (run.task, run.strategy != PLAIN, run.strategy, run.seed),
    ):
        tasks[run.task].append(run)
    lines = [line for task, runs in tasks.items() for line in table(task, runs)]
    ran = describe("python benchmarks/tasks.py", ("flwr", "torch", "numpy"))
    lines.append(options.ran or ran)
    text = options.output.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    made = "\n".join([BEGIN, "", *lines, "", END])
    options.output.write_text(before + made + after, encoding="utf-8")
    picture(tasks, options.output.with_name("tasks.png"))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
