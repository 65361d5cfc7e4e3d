"""Files that are still being written, and logs that become a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flwr_caesar.runner.resume import finished_rounds
from flwr_caesar.runner.text import last_entry, reason, whole_lines, whole_rows

BOX = """\
INFO :      Starting
╭─ Error ──────────────────────────────────────────────────────────────────────╮
│ Connection to the SuperLink is unavailable. Please check your network        │
│ connection and 'address' in the SuperLink connection configuration.          │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
SENTENCE = (
    "Connection to the SuperLink is unavailable. Please check your network "
    "connection and 'address' in the SuperLink connection configuration."
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (BOX, SENTENCE),
        ("ERROR :     ValueError: no file: x\nINFO : bye\n", "ValueError: no file: x"),
        (
            "\x1b[91mERROR \x1b[0m:     The app failed: a.b.FooError: 3\n",
            "a.b.FooError: 3",
        ),
        ("(ClientAppActor pid=7) OSError: disk full\n", "OSError: disk full"),
        ("INFO : It ended because RpcError came\n", "It ended because RpcError came"),
        ("KeyboardInterrupt\nValueError: this is to", "KeyboardInterrupt"),
        (
            "Exception: The current node timed out during startup.\n"
            "RuntimeError: Simulation Runtime crashed.\n"
            "RuntimeError: An error was encountered. Ending simulation.\n",
            "Exception: The current node timed out during startup.",
        ),
        (
            "RuntimeError: Simulation Runtime crashed.\nINFO : bye\n",
            "RuntimeError: Simulation Runtime crashed.",
        ),
        ("", "it said nothing"),
    ],
)
def test_a_reason_is_a_whole_sentence(
    tmp_path: Path, written: str, expected: str
) -> None:
    log = tmp_path / "flower.log"
    log.write_text(written, encoding="utf-8")
    assert reason(log) == expected


def test_a_long_log_is_read_from_the_start_of_a_line(tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    line = "INFO : " + "x" * 92 + "\n"
    log.write_text(line * 10_000 + "INFO : the end\n", encoding="utf-8")
    assert last_entry(log) == "INFO : the end"
    for most in (len(line) * 2, len(line) * 2 + 1, len(line) * 3 - 1):
        found = whole_lines(log, most=most + len("INFO : the end\n")).splitlines()
        assert found == [line.strip()] * 2 + ["INFO : the end"]
    log.write_text("ValueError: " + "word " * 60_000 + "\n", encoding="utf-8")
    assert reason(log) == "it said nothing"  # its only line is cut
    log.write_text("ValueError: " + "word " * 600 + "\n", encoding="utf-8")
    assert reason(log).endswith("word …")
    assert len(reason(log)) <= 602


@pytest.mark.parametrize("torn", ["2,0.", "2,0.5,", '2,0.5,"it ended', "2"])
def test_a_row_that_is_not_whole_is_no_row(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "rounds.csv"
    whole = 'round,accuracy,why\r\n0,0.1,\r\n1,0.25,"two\nlines"\r\n'
    file.write_text(whole + torn, encoding="utf-8", newline="")
    rows = [("0", "0.1", ""), ("1", "0.25", "two\nlines")]
    assert [tuple(row.values()) for row in whole_rows(file)] == rows
    file.write_text(whole + '2,0.5,"it ended\n', encoding="utf-8", newline="")
    assert [tuple(row.values()) for row in whole_rows(file)] == rows
    file.write_text(whole + "x,0.5,\r\n3,0.6,\r\n", encoding="utf-8", newline="")
    assert [tuple(row.values()) for row in whole_rows(file)] == rows
    file.write_bytes(bytes(range(256)) * 4 + b"\n1\n2\n")
    assert whole_rows(file) == []
    assert whole_rows(tmp_path / "none.csv") == []


@pytest.mark.parametrize("text", ["", "[]", '{"rounds": 1e999}', '{"rounds": null}'])
def test_a_damaged_summary_is_of_no_finished_run(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    assert finished_rounds(tmp_path) == 0
