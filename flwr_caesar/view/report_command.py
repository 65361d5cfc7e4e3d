"""``flwr-caesar report``: what runs came to, as one HTML file and as Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from flwr_caesar.results.files import write_whole
from flwr_caesar.results.markdown import markdown
from flwr_caesar.runner.outcome import gather
from flwr_caesar.runner.report import fairness, notes, table
from flwr_caesar.view.collect import Collected, NoRunError, collect
from flwr_caesar.view.document import (
    Picture,
    Section,
    as_html,
    as_markdown,
    write_pictures,
)
from flwr_caesar.view.findings import findings, in_short

HTML, MARKDOWN, PICTURES = "report.html", "report.md", "report-pictures"
_NO_PICTURES = "Pictures need matplotlib: pip install 'flwr-caesar[plot]'."


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar report`` with these arguments.

    Returns
    -------
    int
        0, or 1 if there is no run or the report cannot be written; 2 (as `SystemExit`)
        for a mistake in the command.
    """
    parser = argparse.ArgumentParser(
        prog="flwr-caesar report",
        description="Write what a run or a sweep came to: one HTML file that needs no "
        "network, and the same as Markdown. Several folders are compared.",
    )
    parser.add_argument(
        "run", type=Path, nargs="+", help="folder of a run or a sweep; or several"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write into; by default the run's own, of several there is none",
    )
    given = parser.parse_args(arguments)
    if len(given.run) > 1 and given.output is None:
        parser.error("a report on several folders belongs to none: add --output FOLDER")
    try:
        collected = collect(*given.run)
        sections = sections_of(collected)
        place = given.output or given.run[0]
        place.mkdir(parents=True, exist_ok=True)
        title = f"flwr-caesar: {collected.name}"
        write_whole(place / HTML, as_html(title, sections))
        write_whole(place / MARKDOWN, as_markdown(title, sections, PICTURES))
        write_pictures(sections, place / PICTURES)
    except (NoRunError, OSError) as error:
        print(f"flwr-caesar report: {error}", file=sys.stderr)
        return 1
    print(f"report: {place / HTML}\n        {place / MARKDOWN}")
    return 0


def sections_of(collected: Collected) -> list[Section]:
    """Return the parts of the report on some runs."""
    outcomes = collected.outcomes
    cells = gather(outcomes)
    remarks = findings(cells, collected.config, collected.unfinished)
    pictures, missing = _pictures(collected)
    by_class = fairness(outcomes)
    sections = [
        Section("What was compared", _compared(collected), points=in_short(cells)),
        Section(
            "Warnings",
            [] if remarks else ["Nothing is remarkable."],
            points=[remark.what for remark in remarks],
        ),
        Section(
            "What to change next",
            []
            if any(r.next for r in remarks)
            else ["Nothing that these runs suggest."],
            points=list(dict.fromkeys(r.next for r in remarks if r.next)),
        ),
        Section("Figures", notes(outcomes), table(outcomes)),
        Section("Pictures", missing, pictures=pictures),
    ]
    if by_class is not None:
        said = ["Accuracy that devices reported last, in percent."]
        sections.append(Section("Devices", said, by_class))
    sections.append(
        Section(
            "Settings and versions",
            ["These are of the first run; what differs in others is in the table."]
            if len(outcomes) > 1
            else [],
            _versions(collected),
            texts=collected.settings,
        )
    )
    return sections


def _compared(collected: Collected) -> list[str]:
    cells = gather(collected.outcomes)
    count = len(collected.outcomes)
    runs = "One run" if count == 1 else f"{count} runs of {len(cells)} settings"
    names = ", ".join(dict.fromkeys(cell.name for cell in cells))
    said = f"{runs}: {names}."
    config = collected.config
    told = []
    for group, key in (("data", "name"), ("model", "name"), ("inner", "name")):
        part = config.get(group)
        if isinstance(part, dict) and part.get(key):
            told.append(f"{group} {part[key]}")
    if config.get("app"):
        told.append(f"app {config['app']}")
    federation = config.get("federation")
    if isinstance(federation, dict):
        told.append(f"{federation.get('num_supernodes')} devices")
        if federation.get("fraction_train") is not None:
            told.append(f"{federation['fraction_train']} of them in a round")
        told.append(f"federation {federation.get('kind')}")
    first = "Settings" if len(cells) < 2 else "Settings of the first"
    return [said, f"{first}: {', '.join(told)}."] if told else [said]


def _pictures(collected: Collected) -> tuple[list[Picture], list[str]]:
    if find_spec("matplotlib") is None:
        return [], [_NO_PICTURES]
    from flwr_caesar.view import report_pictures as draw

    cells = [cell for cell in gather(collected.outcomes) if cell.runs]
    drawn = (draw.accuracy, draw.megabytes, draw.seconds, draw.classes)
    return [picture for one in drawn if (picture := one(cells)) is not None], []


def _versions(collected: Collected) -> str:
    summary = next((o.summary for o in collected.outcomes if o.summary), {}) or {}
    rows = [["of the first run", ""]]
    for key in ("machine", "versions"):
        part = summary.get(key)
        if isinstance(part, dict):
            rows += [[str(name), str(value)] for name, value in part.items()]
    for key in ("seed", "parameters"):
        if summary.get(key) is not None:
            rows.append([key, str(summary[key])])
    return markdown(rows) if len(rows) > 1 else ""
