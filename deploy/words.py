"""What a probe found, in words, each with what to do."""

from __future__ import annotations

from dataclasses import dataclass

from .failures import Cause, Failure
from .probe import MOST_AHEAD, MOST_BEHIND, Probed, Standing

_GATEWAY = (502, 503, 504)
SET_CLOCK = "run: timedatectl set-ntp true, and see `timedatectl timesync-status`"
RENEW = "on the server: flwr-caesar deploy renew"


@dataclass(frozen=True)
class Advice:
    """Something that is wrong, and what to do about it.

    Parameters
    ----------
    problem : str
        A sentence without a full stop.
    fix : str
        What to do, and where.
    """

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}" if self.fix else self.problem


def explain(probed: Probed, *, name: str, host: str, port: int) -> Advice | None:
    """Return what keeps a device from taking part; `None` if nothing does.

    Parameters
    ----------
    probed : Probed
        What the probe found.
    name : str
        Of the device.
    host, port
        Of the server.
    """
    where = f"{host}:{port}"
    match probed.standing:
        case Standing.ENROLLED:
            return None
        case Standing.UNKNOWN_KEY:
            return Advice(
                "The server does not know this device's key, or it was removed",
                f"on the server: flwr-caesar enrol ticket {name}; here: flwr-caesar "
                "join TICKET",
            )
        case Standing.WRONG_CLOCK:
            return clock_advice(probed.skew)
        case Standing.REFUSED:
            return Advice(
                "The server refuses this device's signature, although its clock is "
                "right",
                f"something between here and {where} changes the request, such as a "
                "proxy that drops the flwr- headers; go around it",
            )
        case Standing.NOT_FLOWER if probed.status in _GATEWAY:
            return Advice(
                f"{where} answers, but the SuperLink behind it does not "
                f"(HTTP {probed.status})",
                "on the server: flwr-caesar doctor",
            )
        case Standing.NOT_FLOWER:
            return Advice(
                f"{where} answers, but not as a server of Flower 1.41 does (HTTP "
                f"{probed.status})",
                "check [server] address in node.toml, and the versions on both sides",
            )
        case Standing.UNREACHABLE:
            return _unreached(probed, host, port)


def clock_advice(skew: float | None) -> Advice:
    """Return what to say of a clock that the server does not accept."""
    if skew is None:
        problem = "The server refuses this device's clock"
    elif skew > 0:
        problem = (
            f"Clock is {duration(skew)} ahead of the server; Flower refuses more than "
            f"{MOST_AHEAD:.0f} s"
        )
    else:
        problem = (
            f"Clock is {duration(-skew)} behind the server; Flower refuses more than "
            f"{duration(MOST_BEHIND)}"
        )
    return Advice(problem, SET_CLOCK)


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``12 s``, ``4 min``, ``3 h``, ``25 days``."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _unreached(probed: Probed, host: str, port: int) -> Advice:
    where = f"{host}:{port}"
    failure = probed.failure or Failure(Cause.OTHER)
    shown, skew = probed.certificate, probed.skew
    match failure.cause:
        case Cause.CA_FILE:
            return Advice(
                f"The fleet's CA certificate cannot be read: {failure.detail}",
                "copy ca.crt from the server to where [server] ca says",
            )
        case Cause.DNS:
            return Advice(
                f"The name {host} cannot be resolved ({failure.detail})",
                f"check the name and this device's DNS: resolvectl query {host}",
            )
        case Cause.NO_ROUTE:
            return Advice(
                f"There is no route to {where} ({failure.detail})",
                "check that the link is up: ip route",
            )
        case Cause.REFUSED:
            return Advice(
                f"Nothing listens on {where}",
                "on the server: flwr-caesar doctor; or the port in [server] "
                "address is another",
            )
        case Cause.TIMEOUT:
            return Advice(
                f"{where} does not answer",
                "the server is down, or a firewall drops the packets: open the port",
            )
        case Cause.LOST:
            return Advice(
                f"{where} closes the connection ({failure.detail})",
                "the server may be starting; if it stays so, see its log",
            )
        case Cause.NOT_TLS:
            return Advice(
                f"{where} does not speak TLS",
                "[server] address is not the gate's, or it runs without certificates",
            )
        case Cause.PROXY:
            return Advice(
                f"The proxy of this device refuses {where} ({failure.detail})",
                "set NO_PROXY for the server's name, or let the proxy pass it",
            )
        case Cause.EXPIRED | Cause.NOT_YET_VALID if (
            skew is not None and abs(skew) > 86400
        ):
            # A board without a battery for its clock starts years ago.
            return clock_advice(skew)
        case Cause.EXPIRED:
            when = f" on {shown.not_after:%Y-%m-%d}" if shown else ""
            return Advice(f"The server's certificate expired{when}", RENEW)
        case Cause.NOT_YET_VALID:
            when = f" until {shown.not_before:%Y-%m-%d}" if shown else ""
            return Advice(f"The server's certificate is not valid{when}", RENEW)
        case Cause.WRONG_NAME:
            names = ", ".join(shown.names) if shown and shown.names else "no name"
            return Advice(
                f"The server's certificate is not for {host}, only for {names}",
                "write one of these in [server] address, or on the server: flwr-caesar "
                f"deploy server --address {host}",
            )
        case Cause.UNKNOWN_CA:
            issuer = f", {shown.issuer}," if shown else ""
            return Advice(
                f"The server's certificate was signed by another authority{issuer} "
                "than the one in [server] ca",
                "copy ca.crt from the server, or something between intercepts TLS",
            )
        case _:
            return Advice(
                f"{where} cannot be reached: {failure.detail}",
                "see `openssl s_client -connect` to the same address",
            )
