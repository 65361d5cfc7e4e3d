"""Write docs/compatibility.md: `python -m tests.apps.table`, in some minutes.

With words as arguments, only apps whose titles have one of them, and no file.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .app import App
from .catalogue import APPS
from .noise import EXACT, SEEDS, tolerance
from .strategies import OURS, applies
from .verdict import ALLOWANCE, Verdict, judge, missing

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
PACKAGES = ("flwr", "torch", "scikit-learn", "lightning", "peft", "opacus")

HEAD = f"""\
# What works

Small Flower apps, each of one habit, run under plain Flower and under every strategy
with its defaults, by `python -m tests.apps.table`. Each run is one process with two to
nine devices, and every message passes its wire form.

A cell is what became of an app under a strategy. If it **works**, no reply was dropped
and the app saw the same as under plain Flower; the numbers are by how many points the
accuracy after equal rounds differs from plain Flower's (for apps without accuracy,
hundredths of the way to a goal), and the bytes of all messages, all their records
counted, over plain Flower's; both with the same seeds. If it is **refused**, the run
ends before the second round with the sentence below the table.

*noise* is what plain Flower differs from itself by: twice the larger of two standard
deviations, that of {len(SEEDS)} seeds and that of a share of so few test examples; for
apps without noise, {100 * EXACT:.0f} hundredth of the way. An app that works is not
worse by more. †: that cannot be by the method's nature; below the table is why. No
message is larger than plain Flower's by more than {ALLOWANCE} bytes, nor are all
together by more than that for each message, but for FedComLoc's, which sends the model
once more after each round.

These models have 1 to 70,000 parameters. Up to 50,000 the defaults spare less than for
larger models ([small models](benchmarks/small-models.md)); what those save stands in
[experiments](experiments/summary.md).
"""


class Notes:
    """Sentences below the table, each once, by number."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def mark(self, sentence: str) -> str:
        """Return the number of a sentence, a new one if it is new."""
        sentence = " ".join(sentence.split())
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return f"[{self.sentences.index(sentence) + 1}]"


def cell(verdict: Verdict, notes: Notes) -> str:
    """Return a cell of the table; sentences become notes below it."""
    if verdict.faults:
        return "**fails** " + notes.mark("; ".join(verdict.faults))
    if verdict.sentence:
        return "refused " + notes.mark(verdict.sentence)
    points = round(100 * verdict.difference, 1) + 0.0
    short = f"† {notes.mark(verdict.short)}" if verdict.short else ""
    return f"{points:+.1f}{short}, {100 * verdict.ratio:.0f} %"


def row(app: App, notes: Notes) -> str:
    """Run an app under all strategies and return its row."""
    start = time.process_time()
    refused_by_all = all(app.refusal(name) for name in OURS)
    cells = [app.title, "" if refused_by_all else f"{100 * tolerance(app):.1f}"]
    for name in OURS:
        if applies(app, name):
            verdict = judge(app, name)
            print(f"{app.title}: {name}: {verdict}", file=sys.stderr)
            cells.append(cell(verdict, notes))
        else:
            cells.append("–")
    print(f"{app.title}: {time.process_time() - start:.1f} s", file=sys.stderr)
    return f"| {' | '.join(cells)} |"


def page(words: list[str]) -> str:
    """Return the page."""
    notes, rows, skipped = Notes(), [], []
    for app in APPS:
        if words and not any(word in app.title for word in words):
            continue
        if reason := missing(app):
            skipped.append(f"Not run here: {reason}.")
        else:
            rows.append(row(app, notes))
    lines = [
        HEAD,
        f"| app | noise | {' | '.join(OURS)} |",
        f"| --- | ---: |{' ---: |' * len(OURS)}",
        *rows,
        "",
        "–: FedComLoc needs a line in the training loop, which only apps in plain "
        "torch SGD have; `downlink` is an option of three strategies.",
        "",
        *(f"{i}. {sentence}" for i, sentence in enumerate(notes.sentences, 1)),
        "",
        *(f"{line}\n" for line in skipped),
        f"`python -m tests.apps.table`, {', '.join(versions())}, CPU.",
    ]
    return "\n".join(lines) + "\n"


def versions() -> list[str]:
    """Return Python and packages with their versions, those that are there."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def main(words: list[str]) -> None:
    """Write the page, or print a part of it."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    text = page(words)
    if words:
        print(text)
    else:
        PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
