"""Each way in which a server is not reached, from real sockets to the sentence."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flwr_caesar.deploy.certificate import skew_of
from flwr_caesar.deploy.device_key import make_key
from flwr_caesar.deploy.failures import Cause, Failure
from flwr_caesar.deploy.pki import Identity, issue, make_authority
from flwr_caesar.deploy.probe import Probed, Standing, probe
from flwr_caesar.deploy.words import duration, explain

from .plain_server import HOST, PlainServer, Silent, redated

AUTHORITY = make_authority()
GOOD = issue(AUTHORITY, [HOST], days=30)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate_pem)
    return tmp_path / "ca.crt"


def ask(ca: Path, port: int, host: str = HOST) -> Probed:
    key = make_key(ca.parent / "device.key")
    return probe(host, port, ca=ca, key=key, timeout=2.0)


def said(probed: Probed, port: int, host: str = HOST) -> str:
    return str(explain(probed, name="jetson-07", host=host, port=port))


def shifted(days: float, identity: Identity = GOOD) -> Identity:
    """Return a certificate that is valid for two days from so many days from now."""
    begin = datetime.now(UTC) + timedelta(days=days)
    return redated(AUTHORITY, identity, begin, begin + timedelta(days=2))


@pytest.mark.parametrize(
    ("identity", "cause", "words"),
    [
        (None, Cause.NOT_TLS, "does not speak TLS"),
        (shifted(-10), Cause.EXPIRED, "certificate expired on "),
        (shifted(10), Cause.NOT_YET_VALID, "certificate is not valid until "),
        (
            issue(AUTHORITY, ["fleet.example", "10.0.0.7"], days=30),
            Cause.WRONG_NAME,
            "is not for 127.0.0.1, only for fleet.example, 10.0.0.7",
        ),
        (
            issue(make_authority(), [HOST], days=30),
            Cause.UNKNOWN_CA,
            "signed by another authority, CN=flwr-caesar fleet",
        ),
    ],
)
def test_a_certificate_that_is_not_right_is_named(
    ca: Path, identity: Identity | None, cause: Cause, words: str
) -> None:
    with PlainServer(identity, ca.parent) as server:
        found = ask(ca, server.port)
    assert found.standing is Standing.UNREACHABLE
    assert found.failure is not None
    assert found.failure.cause is cause
    assert words in said(found, server.port)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "answers, but not as a server of Flower 1.41 does (HTTP 404)"),
        (200, "answers, but not as a server of Flower 1.41 does (HTTP 200)"),
        (503, "the SuperLink behind it does not (HTTP 503)"),
        (502, "the SuperLink behind it does not (HTTP 502)"),
        (401, "refuses this device's signature"),
    ],
)
def test_what_answers_and_is_no_superlink_is_named(
    ca: Path, status: int, words: str
) -> None:
    with PlainServer(GOOD, ca.parent, status=status) as server:
        found = ask(ca, server.port)
    assert found.status == status
    assert words in said(found, server.port)
    assert found.certificate is not None
    assert found.certificate.names == (HOST,)
    assert found.skew == pytest.approx(0, abs=2)


def test_nobody_listens_and_nobody_answers(ca: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        found = ask(ca, port)
    assert said(found, port).startswith(f"Nothing listens on {HOST}:{port}")
    with Silent() as silent:
        found = ask(ca, silent.port)
    assert "does not answer" in said(found, silent.port)


def test_a_name_that_nobody_knows(ca: Path) -> None:
    found = ask(ca, 8443, host="no-such-host.invalid")
    assert "The name no-such-host.invalid cannot be resolved" in said(
        found, 8443, "no-such-host.invalid"
    )


def test_a_ca_file_that_cannot_be_read(ca: Path) -> None:
    ca.write_text("no certificate")
    assert "CA certificate cannot be read" in said(ask(ca, 8443), 8443)
    ca.unlink()
    found = ask(ca, 8443)
    assert found.failure is not None
    assert found.failure.cause is Cause.CA_FILE
    assert "No such file" in said(found, 8443)


def test_a_proxy_that_refuses_is_named(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PlainServer(None, ca.parent, status=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{HOST}:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        found = ask(ca, 8443, host="fleet.example")
    assert found.failure is not None
    assert found.failure.cause is Cause.PROXY


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (12.0, "Clock is 12 s ahead of the server; Flower refuses more than 5 s"),
        (-720.0, "Clock is 12 min behind the server; Flower refuses more than 5 min"),
        (None, "The server refuses this device's clock"),
    ],
)
def test_a_wrong_clock_is_told_with_the_way_to_set_it(
    skew: float | None, words: str
) -> None:
    text = said(Probed(standing=Standing.WRONG_CLOCK, skew=skew), 1)
    assert text.startswith(words)
    assert "timedatectl set-ntp true" in text


def test_an_unknown_key_is_told_with_the_way_in() -> None:
    text = said(Probed(standing=Standing.UNKNOWN_KEY), 1)
    assert "does not know this device's key" in text
    assert "flwr-caesar enrol ticket jetson-07" in text


def test_every_standing_but_enrolled_and_every_cause_has_its_own_advice() -> None:
    found = [
        Probed(standing=Standing.UNREACHABLE, failure=Failure(cause)) for cause in Cause
    ]
    found += [Probed(standing=s) for s in Standing if s is not Standing.UNREACHABLE]
    advice = [explain(one, name="n", host="h", port=1) for one in found]
    assert [a is None for a in advice].count(True) == 1
    problems = [a.problem for a in advice if a]
    # TLS without more and what nobody foresaw are said alike.
    assert len(set(problems)) == len(problems) - 1
    assert all(a.fix for a in advice if a)


def test_skew_of_a_date_header() -> None:
    at = datetime(2026, 11, 26, 10, 0, 12, tzinfo=UTC).timestamp()
    assert skew_of("Thu, 26 Nov 2026 10:00:00 GMT", at) == 11.5
    assert skew_of("yesterday", at) is None
    assert skew_of(None, at) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e6, "23 days")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
