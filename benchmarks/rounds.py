"""Seconds a round through a real SuperLink and two SuperNodes, with and without us.

The model has the 122 tensors and 11.2 million parameters of a ResNet-18; devices add
noise to it instead of training, so that a round is what Flower and we do. FedAvg,
TopK and Caesar take turns on the same SuperLink and SuperNodes. Writes
docs/benchmarks/rounds.md.

    python benchmarks/rounds.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from environment import describe

from flwr_caesar.runner.superlink import CONNECTION, SuperLink, executable

HERE = Path(__file__).parent
TABLE = HERE.parent / "docs" / "benchmarks" / "rounds.md"


def copy_app(link: SuperLink) -> Path:
    """Put the app below a SuperLink's folder, with the models in it."""
    app = link.home / "apps-src" / "app"
    shutil.copytree(HERE / "rounds_app", app)
    shutil.copy(HERE / "models.py", app / "rounds_app" / "models.py")
    return app


def run_app(
    link: SuperLink, app: Path, strategy: str, rounds: int, more: str = ""
) -> dict[str, Any]:
    """Run the app once and return what its ServerApp measured."""
    result = app.parent / f"{strategy}-{time.monotonic_ns()}.json"
    config = f'strategy="{strategy}" rounds={rounds} result="{result}" {more}'
    command = [executable("flwr"), "run", str(app), CONNECTION, "--stream"]
    done = subprocess.run(
        [*command, "--run-config", config],
        env=link.environment,
        capture_output=True,
        text=True,
    )
    if not result.is_file():
        raise SystemExit(f"the run failed:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(result.read_text())
    return measured


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds per run")
    parser.add_argument("--repeats", type=int, default=2, help="runs per strategy")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {"fedavg": [], "topk": [], "caesar": []}
    traffic: dict[str, dict[str, Any]] = {}
    with SuperLink(simulation=False) as link:
        app = copy_app(link)
        for i in range(2):
            link.start_supernode(i, 2)
        for repeat in range(args.repeats):
            for strategy in seconds:
                measured = run_app(link, app, strategy, args.rounds)
                seconds[strategy] += measured["seconds"]
                traffic[strategy] = measured
                shown = ", ".join(f"{s:.1f}" for s in measured["seconds"])
                print(f"run {repeat + 1}, {strategy}: {shown} s a round", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [
        "# Seconds a round",
        "",
        "ResNet-18's 122 tensors (44.8 MB) through a real SuperLink and two SuperNodes",
        "on loopback; devices add noise instead of training. Medians over all rounds,",
        "the strategies in turn on the same processes. `fedavg` is Flower's FedAvg;",
        "`topk` is `TopK(FedAvg(), density=0.01)`, `caesar` is `Caesar(FedAvg())`.",
        "",
        "| strategy | s a round | of FedAvg's | MB down | MB up |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, median in medians.items():
        down, up = (traffic[name][key] / 1e6 for key in ("bytes_down", "bytes_up"))
        lines.append(
            f"| {name} | {median:.1f} | {median / medians['fedavg']:.2f} "
            f"| {down:.1f} | {up:.2f} |"
        )
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    lines += ["", f"Load of the machine at the end, its own share included: {load}."]
    command = f"python benchmarks/rounds.py --rounds {args.rounds}"
    lines += ["", describe(f"{command} --repeats {args.repeats}")]
    TABLE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
