"""Write docs/compatibility.md: `python -m tests.apps.table > docs/compatibility.md`.

With words as arguments, only apps whose titles have one of them.
"""

from __future__ import annotations

import logging
import sys
import time
from importlib.metadata import version

from .app import App
from .catalogue import APPS
from .strategies import OURS, applies
from .verdict import Verdict, judge, missing

HEAD = """\
# What works

Small Flower apps, each one habit, run under plain Flower and under every strategy with
its defaults, by `python -m tests.apps.table > docs/compatibility.md`; the tests run the
same. A cell says by how many points the accuracy after equal rounds differs from plain
Flower's (for apps without accuracy, hundredths of the way to the goal), and what share
of plain Flower's bytes travelled, both ways, all records of all messages counted. Apps
whose runs vary are the mean of three seeds.

These models have 1 to 70,000 parameters, so that hundreds of runs take minutes: a
message's fixed cost is a large share of theirs. What larger models save stands in
[experiments](experiments/summary.md).
"""


def cell(verdict: Verdict, notes: list[str]) -> str:
    """Return a cell of the table; sentences become notes below it."""
    if verdict.faults:
        return "**fails** " + note("; ".join(verdict.faults), notes)
    if verdict.sentence:
        return "refused " + note(verdict.sentence, notes)
    points = round(100 * verdict.difference, 1) + 0.0
    mark = " *" if verdict.lags else ""
    return f"{points:+.1f}{mark}, {100 * verdict.ratio:.0f} %"


def note(sentence: str, notes: list[str]) -> str:
    """Return the number of a note, a new one if it was not made."""
    sentence = " ".join(sentence.split())
    if sentence not in notes:
        notes.append(sentence)
    return f"[{notes.index(sentence) + 1}]"


def row(app: App, notes: list[str]) -> str:
    """Run an app under all strategies and return its row."""
    cells = [app.title]
    for name in OURS:
        if not applies(app, name):
            cells.append("–")
            continue
        start = time.process_time()
        verdict = judge(app, name)
        cells.append(cell(verdict, notes))
        print(
            f"{app.title}: {name}: {verdict} ({time.process_time() - start:.1f} s)",
            file=sys.stderr,
        )
    return f"| {' | '.join(cells)} |"


def main(words: list[str]) -> None:
    """Print the page."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    notes: list[str] = []
    lines = [
        f"| app | {' | '.join(OURS)} |",
        f"| --- |{' ---: |' * len(OURS)}",
    ]
    skipped = []
    for app in APPS:
        if words and not any(word in app.title for word in words):
            continue
        if reason := missing(app):
            skipped.append(reason)
            continue
        lines.append(row(app, notes))
    print(HEAD)
    print("\n".join(lines))
    print(
        "\n–: FedComLoc needs a line in the training loop, which only apps in plain "
        "torch SGD have.\n\n"
        "\\*: more than the app's tolerance below plain Flower. The method leaves out "
        "much of what it is given (`CorrelationAware` 99 % of an update, `TopK` 90 %, "
        "`MagnitudePruning` half of a model), and these few rounds do not make up for "
        "it; raise its density, or train for more rounds.\n"
    )
    for number, sentence in enumerate(notes, 1):
        print(f"{number}. {sentence}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("flwr", "torch"))
    print(f"\nMeasured with {versions}, Python {sys.version.split()[0]}, CPU.")
    for reason in skipped:
        print(f"\nNot run: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
