"""The way to the server: its name, its certificate, the clock, the key, the bytes."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from flwr_caesar.deploy.certificate import Certificate
from flwr_caesar.deploy.link_meter import LinkError, default_interface
from flwr_caesar.deploy.metered import Metered
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.probe import MOST_AHEAD, Probed, Standing, probe
from flwr_caesar.deploy.words import RENEW, SET_CLOCK, Advice, duration, explain

from .finding import Finding, failure, ok, warning

SOON_DAYS = 30.0
_CONTROL = "/v1/control/list-nodes"
_SKEW_TO_MENTION = MOST_AHEAD / 2
_CELLULAR = ("wwan", "ppp", "usb", "rmnet")


def check_link(node: NodeFile, key: ec.EllipticCurvePrivateKey) -> list[Finding]:
    """Ask the server, and judge all that its answer tells.

    Parameters
    ----------
    node : NodeFile
        The device's.
    key : ec.EllipticCurvePrivateKey
        Its key.
    """
    host, port = node.host_port
    probed = probe(host, port, ca=node.ca, key=key)
    advice = explain(probed, name=node.name, host=host, port=port)
    findings = []
    if advice is None:
        findings.append(ok("server", f"{node.address} knows this device"))
    else:
        findings.append(failure("server", advice))
    if probed.standing is not Standing.UNREACHABLE:
        findings += judge_certificate(probed.certificate, time.time())
        findings += judge_clock(probed)
        findings.append(check_control(node))
    return findings


def judge_certificate(shown: Certificate | None, now: float) -> list[Finding]:
    """Return how long the server's certificate is still valid."""
    if shown is None:
        return []
    days = shown.days_left(now)
    if days > SOON_DAYS:
        return [
            ok("certificate", f"valid for {days:.0f} days, {', '.join(shown.names)}")
        ]
    return [
        warning("certificate", Advice(f"Certificate expires in {days:.0f} days", RENEW))
    ]


def judge_clock(probed: Probed) -> list[Finding]:
    """Return how far the clocks are apart, where Flower still takes it."""
    skew = probed.skew
    if probed.standing is Standing.WRONG_CLOCK or skew is None:
        return []
    apart = f"{duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the server"
    if skew > _SKEW_TO_MENTION:
        text = f"Clock is {apart}; Flower refuses more than {MOST_AHEAD:.0f} s"
        return [warning("clock", Advice(text, SET_CLOCK))]
    if skew < -30:
        return [warning("clock", Advice(f"Clock is {apart}", SET_CLOCK))]
    return [
        ok("clock", "as the server's, within a second" if abs(skew) < 1.5 else apart)
    ]


def check_control(node: NodeFile) -> Finding:
    """Whether this device reaches what only the server's own people may.

    A GET, which no call of the Control API takes, so that nothing is done: it is
    answered 405 where the API is, and 404 behind a gate.
    """
    try:
        trusted = ssl.create_default_context(cafile=str(node.ca))
        url = f"https://{node.address}{_CONTROL}"
        status = httpx.get(url, verify=trusted, timeout=10).status_code
    except (httpx.HTTPError, OSError) as err:
        return warning(
            "control API",
            Advice(f"Whether it is closed cannot be told: {err}", "run it again"),
        )
    if status in (403, 404):
        return ok("control API", "closed to devices")
    return failure(
        "control API",
        Advice(
            f"Control API reachable from here (HTTP {status}): the server is open to "
            "every device",
            "put the gate before the SuperLink and let that listen on 127.0.0.1: "
            "flwr-caesar deploy server",
        ),
    )


def check_idle(metered: Metered | None, root: Path) -> Finding:
    """Return what Flower's polling costs on this link."""
    if metered is not None:
        cost = metered.idle_bytes_a_month
        text = (
            f"Idle polling costs about {cost / 1e9:.1f} GB a month on this metered link"
        )
        if metered.windows and not _exceeds(cost, metered.bytes_a_month):
            return ok("idle bytes", text)
        fix = 'let it be online at night only: [metered] windows = ["02:00-04:00"]'
        return warning("idle bytes", Advice(text, fix))
    try:
        interface = default_interface(root)
    except LinkError:
        return ok("idle bytes", "link not metered")
    if interface.startswith(_CELLULAR):
        cost = Metered().idle_bytes_a_month
        return warning(
            "idle bytes",
            Advice(
                f"The link is {interface}, a mobile one perhaps: idle polling costs "
                f"about {cost / 1e9:.1f} GB a month",
                "if it is metered, write a [metered] table in node.toml",
            ),
        )
    return ok("idle bytes", f"{interface}, not metered")


def _exceeds(cost: float, budget: int) -> bool:
    return budget > 0 and cost > budget
