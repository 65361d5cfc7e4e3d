"""What a report says of runs, and that it is one file that loads nothing."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar import cli
from flwr_caesar.runner.outcome import gather
from flwr_caesar.view import report_command
from flwr_caesar.view.collect import NoRunError, collect
from flwr_caesar.view.document import Section, as_html, as_markdown
from flwr_caesar.view.findings import findings, in_short

from .browser import Browser, found
from .runs import HOSTILE, write_run

pytest.importorskip("matplotlib")


def sweep(path: Path, *strategies: str) -> Path:
    for number, strategy in enumerate(strategies):
        run = path / f"{number}-{strategy}"
        folder = write_run(run, strategy=strategy)
        overrides = json.dumps([f"strategy={strategy}"])
        (run / "overrides.yaml").write_text(overrides, encoding="utf-8")
        folder.finish({"w": np.zeros(8_000, np.float32)})
    return path


def said(run: Path) -> str:
    collected = collect(run)
    cells = gather(collected.outcomes)
    remarks = findings(cells, collected.config, collected.unfinished)
    return "\n".join(f"{remark.what} -> {remark.next}" for remark in remarks)


class Parts(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        self.alts += [v or "" for k, v in attrs if k == "alt"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its report, made once: drawing takes seconds."""
    run = sweep(tmp_path_factory.mktemp("report") / "sweep", "fedavg", "caesar")
    assert cli.main(["report", str(run)]) == 0
    return run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, where they are not what is tested."""
    monkeypatch.setattr(report_command, "_pictures", lambda collected: ([], []))


def test_a_report_is_one_file_that_loads_nothing(reported: Path) -> None:
    run = reported
    page = Parts((run / "report.html").read_text(encoding="utf-8"))
    assert len(page.links) == 4
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert all(page.alts)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    # What a device said is text.
    assert page.tags.count("img") == 4
    assert "<img src=x onerror" in page.text
    for part in ("What was compared", "Warnings", "What to change next", "versions"):
        assert part in page.text
    drawn = base64.b64decode(page.links[0].partition(",")[2]).decode()
    for name in ("fedavg", "caesar", "test accuracy"):
        assert name in drawn


def test_the_same_as_markdown_with_its_pictures(reported: Path) -> None:
    out = reported
    text = (out / "report.md").read_text(encoding="utf-8")
    places = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(places) == 4
    assert all((out / place).is_file() for place in places)
    assert "<img" not in text.replace("\\<img", "")
    assert "| caesar " in text


def test_the_same_run_makes_the_same_report_elsewhere(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["report", str(reported), "--output", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    again = (out / "report.html").read_bytes()
    assert again == (reported / "report.html").read_bytes()


def test_runs_of_several_folders_are_compared_and_none_is_another_ones_seed(
    tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        write_run(Path(run)).finish({"w": np.zeros(8_000, np.float32)})
    with pytest.raises(SystemExit):
        cli.main(["report", *runs])
    assert "add --output FOLDER" in capsys.readouterr().err
    out = tmp_path / "out"
    assert cli.main(["report", *runs, "--output", str(out)]) == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "2 runs of 2 settings" in text
    rows = [line for line in text.splitlines() if re.match(r"\| \w+ (one|two) ", line)]
    assert len(rows) == 2


def test_a_folder_of_runs_is_told_which_there_are(tmp_path: Path) -> None:
    write_run(tmp_path / "2026-11-27" / "10-00-00-app")
    with pytest.raises(NoRunError, match=r"such as .*10-00-00-app"):
        collect(tmp_path)


def test_what_was_sent_is_said_first(tmp_path: Path) -> None:
    cells = gather(collect(sweep(tmp_path, "caesar")).outcomes)
    # Three rounds: three models down and two used uploads of 32 kB each.
    assert in_short(cells) == [
        "caesar sent 9 kB up and 18 kB down for 70.00 % accuracy, 17.8 × fewer than "
        "uncompressed."
    ]


def test_refused_replies_are_a_share_and_a_reason(tmp_path: Path) -> None:
    text = said(sweep(tmp_path, "caesar"))
    assert "caesar: 33 % of replies were not used, most often (3 of 3) because" in text
    assert "seed=1,2,3" not in text  # there is nothing to compare


def test_one_seed_and_rising_accuracy_are_told(tmp_path: Path) -> None:
    run = sweep(tmp_path, "fedavg", "topk")
    for row in range(4, 12):
        for name in ("0-fedavg", "1-topk"):
            with (run / name / "rounds.csv").open("a", encoding="utf-8") as file:
                more = 0.02 * row if name == "0-fedavg" else 0.0
                values = (row, 0.7 + more, 0.1, 1, 1, row, row * 30_000)
                file.write(",".join(map(str, values)) + ",3,0,0,0,0.1,9,1\n")
    text = said(run)
    assert "Each setting was run once" in text
    assert "Add seed=1,2,3" in text
    assert "fedavg: accuracy still rose by" in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_goes_on_is_reported_as_far_as_it_got(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "1 run did not come to the end" in text
    assert "70.00 %" in text


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_a_report_or_in_one_line(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = sweep(tmp_path / "sweep", "caesar")
    draw = random.Random(seed)
    for path in sorted(run.rglob("*")):
        if path.is_file() and draw.random() < 0.6:
            data = bytearray(path.read_bytes())
            for _ in range(draw.randrange(1, 30)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(data)
    if cli.main(["report", str(run)]) == 1:
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "summary",
    [
        "[]",
        "3",
        '{"rounds": "x"}',
        '{"rounds": 2, "accuracy": "high"}',
        '{"rounds": 2}',
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_summary_that_is_none(summary: str, tmp_path: Path) -> None:
    run = sweep(tmp_path, "caesar")
    (run / "0-caesar" / "summary.json").write_text(summary, encoding="utf-8")
    assert cli.main(["report", str(run)]) == 0


def test_there_must_be_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        assert cli.main(["report", str(place)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(NoRunError, match="name a run's folder"):
        collect(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_saved_history_is_reported_too(tmp_path: Path) -> None:
    from ..results.test_results import trained

    trained(tested=False).save(tmp_path / "own")
    assert cli.main(["report", str(tmp_path / "own")]) == 0
    text = (tmp_path / "own" / "report.md").read_text(encoding="utf-8")
    assert "no accuracy is known" in text


def test_markup_in_a_name_is_text() -> None:
    sections = [Section(HOSTILE, [HOSTILE], texts={HOSTILE: HOSTILE}, points=[HOSTILE])]
    assert Parts(as_html(HOSTILE, sections)).tags.count("img") == 0
    text = as_markdown("# [a](b)", sections, "pictures")
    assert text.startswith("# \\# \\[a\\](b)")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found()
    made = Browser(tmp_path / "browser")
    yield made
    made.close()


def test_a_browser_shows_the_pictures(
    reported: Path, browser: Browser, tmp_path: Path
) -> None:
    alone = shutil.copy(reported / "report.html", tmp_path)
    browser.open(Path(alone).as_uri())
    widths = "[...document.images].map(i => i.complete ? i.naturalWidth : 0)"
    assert all(width > 300 for width in browser.ask(widths))
    assert browser.ask("document.images.length") == 4
