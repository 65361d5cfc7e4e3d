"""What a SuperNode printed before it ended, and what is said of it."""

from __future__ import annotations

import pytest

from flwr_caesar.deploy.endings import Ending, explain_ending, wait_after
from flwr_caesar.deploy.probe import Probed, Standing

KNOWN = Probed(standing=Standing.ENROLLED)
REFUSED = """ERROR :     Exit Code: 305
Failed to initialize the connection to the SuperLink.
[code: 2004] Failed to activate SuperNode.
The SuperNode could not establish a connection to the SuperLink."""


def explained(
    code: int, text: str, probed: Probed = KNOWN, refusals: int = 0
) -> Ending:
    return explain_ending(
        code,
        text.splitlines(),
        probed,
        name="jetson-07",
        host="fleet.example",
        port=8443,
        local_port=9094,
        refusals=refusals,
    )


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (
            1,
            "FileNotFoundError: [Errno 2] No such file or directory: "
            "'flower-superexec'",
            "flower-superexec is not on PATH",
        ),
        (
            1,
            "ERROR:    [Errno 98] error while attempting to bind on address "
            "('127.0.0.1', 9094): address already in use",
            "Port 9094 of this machine is taken",
        ),
        (
            1,
            "RuntimeError: SuperNode Runtime HTTP API failed to start.",
            "Port 9094 of this machine is taken",
        ),
        (1, "[code: 2001] SuperNode must be registered", "showed none"),
        (1, "Exit Code: 302\nUnable to parse the private key", "cannot read the devic"),
        (1, "Exit Code: 606\nUpgrade", "do not fit together"),
        (
            1,
            "click.exceptions.ClickException: The provided configuration string is in "
            "an invalid format.",
            "cannot read the [node-config]",
        ),
        (0, "SuperNode terminated gracefully.", "stopped by itself"),
        (-9, "anything", "was killed (SIGKILL), most likely for want of memory"),
        (-11, "anything", "ended by SIGSEGV"),
        (-99, "", "ended by signal 99"),
        (3, "one\nlast words\n\n", "ended with 3; its last words: last words"),
        (3, "", "its last words: nothing"),
    ],
)
def test_each_end_is_told_in_words_with_what_to_do(
    code: int, text: str, words: str
) -> None:
    ending = explained(code, text)
    assert words in ending.advice.problem
    assert ending.advice.fix
    assert not ending.already_online


def test_2004_of_a_known_key_is_waited_out_and_then_means_a_copy() -> None:
    first = explained(1, REFUSED)
    assert first.already_online
    assert "or it crashed less than 60 s ago" in first.advice.problem
    later = explained(1, REFUSED, refusals=1)
    assert later.already_online
    assert "another device has a copy of it" in later.advice.problem
    assert "crashed" not in later.advice.problem


def test_2004_of_an_unknown_key_is_an_unknown_key() -> None:
    ending = explained(1, REFUSED, Probed(standing=Standing.UNKNOWN_KEY))
    assert not ending.already_online
    assert "does not know this device's key" in ending.advice.problem


def test_an_end_without_an_error_is_explained_by_the_clock_or_the_key() -> None:
    wrong = Probed(standing=Standing.WRONG_CLOCK, skew=12.0)
    text = "SuperNode terminated gracefully."
    assert "Clock is 12 s ahead" in explained(0, text, wrong).advice.problem
    removed = Probed(standing=Standing.UNKNOWN_KEY)
    assert "it was removed" in explained(0, text, removed).advice.problem


def test_waits_double_up_to_five_minutes() -> None:
    assert [wait_after(n) for n in (1, 2, 3, 7, 8, 10_000)] == [
        5,
        10,
        20,
        300,
        300,
        300,
    ]
