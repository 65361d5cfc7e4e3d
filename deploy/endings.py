"""Why a SuperNode ended, told from its exit code, its last lines and a probe."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from .probe import Probed
from .words import Advice, explain

# Flower takes a node that fell silent for online for two heartbeats of 30 s.
LAPSE_SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0


@dataclass(frozen=True)
class Ending:
    """How a SuperNode ended.

    Parameters
    ----------
    advice : Advice
        Why, and what to do.
    already_online : bool
        Whether the server takes the device for online, so that it is to be waited for.
    """

    advice: Advice
    already_online: bool = False


def explain_ending(
    code: int,
    lines: Sequence[str],
    probed: Probed,
    *,
    name: str,
    host: str,
    port: int,
    local_port: int,
    refusals: int = 0,
) -> Ending:
    """Return why a SuperNode ended.

    Parameters
    ----------
    code : int
        Its exit code, or minus the number of the signal that ended it.
    lines : sequence of str
        What it printed last.
    probed : Probed
        What a probe found after its end.
    name, host, port
        Of the device and its server.
    local_port : int
        That it was to listen on.
    refusals : int
        How many times in a row the server took it for online already, before this.
    """
    text = "\n".join(lines)
    found = _told(text, name, local_port)
    if found is not None:
        return Ending(found)
    standing = explain(probed, name=name, host=host, port=port)
    if standing is not None:
        return Ending(standing)
    if "code: 2004" in text:
        return Ending(_already_online(refusals), already_online=True)
    if code < 0:
        return Ending(_killed(-code))
    if code == 0:
        return Ending(
            Advice(
                "The SuperNode stopped by itself: the server refused it once, or "
                "someone stopped it",
                "nothing to do: it is started again",
            )
        )
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return Ending(
        Advice(
            f"The SuperNode ended with {code}; its last words: {last:.200}",
            "see the lines above",
        )
    )


def wait_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, counted from 1."""
    return float(min(_FIRST_WAIT * 2 ** min(failures - 1, 10), _LONGEST_WAIT))


def superexec_missing() -> Advice:
    """Return what to say where Flower's own commands are missing."""
    return Advice(
        "flower-superexec is not on PATH: Flower would never come online",
        "start it through `flwr-caesar node` of the environment in which flwr is "
        "installed",
    )


def port_taken(port: int) -> Advice:
    """Return what to say where another process has the SuperNode's port."""
    return Advice(
        f"Port {port} of this machine is taken, by another SuperNode perhaps",
        "give each SuperNode a [device] port and a state-dir of its own; `ss -ltnp "
        f"sport = :{port}` shows who has it",
    )


def _told(text: str, name: str, local_port: int) -> Advice | None:
    """Return what the SuperNode's own words already make certain."""
    if "flower-superexec" in text and "FileNotFoundError" in text:
        return superexec_missing()
    if "address already in use" in text or "HTTP API failed to start" in text:
        return port_taken(local_port)
    if "code: 2001" in text:
        return Advice(
            "The server takes registered keys only, and the SuperNode showed none",
            f"on the server: flwr-caesar enrol ticket {name}; here: flwr-caesar join "
            "TICKET",
        )
    if "Exit Code: 302" in text:
        return Advice(
            "Flower cannot read the device's key",
            "it must be ECDSA, in OpenSSH format, without a passphrase: "
            "ssh-keygen -t ecdsa -b 384 -N '' -f KEY",
        )
    if "Exit Code: 606" in text:
        return Advice(
            "The Flower versions here and on the server do not fit together",
            "install the same flwr-caesar on both sides: pip install flwr-caesar==…",
        )
    if "provided configuration string is in an invalid format" in text:
        return Advice(
            "Flower cannot read the [node-config] of node.toml",
            "write plain numbers, true or false, or text without quotes",
        )
    return None


def _already_online(refusals: int) -> Advice:
    if refusals == 0:
        return Advice(
            "This key is already online: another device has a copy of it, or it "
            f"crashed less than {LAPSE_SECONDS:.0f} s ago",
            "nothing to do yet: it is tried again",
        )
    return Advice(
        "This key is still online, although this device has been silent for "
        f"{LAPSE_SECONDS:.0f} s: another device has a copy of it",
        "find the copy (an image that was cloned?) and let it join with a ticket of "
        "its own",
    )


def _killed(number: int) -> Advice:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return Advice(
            "The SuperNode was killed (SIGKILL), most likely for want of memory",
            "see `journalctl -k | grep -i oom`; add swap, or ask for smaller batches",
        )
    return Advice(f"The SuperNode was ended by {name}", "it is started again")
