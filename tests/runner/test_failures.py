"""What the command says of a run that ended before it was done."""

from __future__ import annotations

from pathlib import Path

import pytest

from flwr_caesar.results.files import EVENTS
from flwr_caesar.runner.folder import LOG
from flwr_caesar.runner.progress import Progress
from flwr_caesar.runner.run import RunFailedError, _fail

SILENT = "INFO :      Global evaluation\n"
EXCEPTION = "ERROR :     OSError: disk full\nINFO : bye\n"


@pytest.mark.parametrize(
    ("log", "began", "failure", "expected"),
    [
        (SILENT, True, "", "the ServerApp ended without a word"),
        (SILENT, True, "it said so", "it said so; the log is"),
        (SILENT, False, "", "Global evaluation; the log is"),
        (EXCEPTION, True, "", "OSError: disk full; the log is"),
        (EXCEPTION, False, "", "OSError: disk full; the log is"),
    ],
)
def test_a_server_app_that_ends_without_a_word_is_told_as_such(
    log: str, began: bool, failure: str, expected: str, tmp_path: Path
) -> None:
    """As one does that the machine kills because it takes too much memory."""
    (tmp_path / LOG).write_text(log)
    if began:
        (tmp_path / EVENTS).write_text("{}\n")
    progress = Progress("caesar", 3, lambda line: None)
    progress.failure = failure
    with pytest.raises(RunFailedError, match=expected) as caught:
        _fail(progress, tmp_path)
    text = str(caught.value)
    assert text.startswith(expected)
    assert ("memory" in text) == ("without a word" in expected)
