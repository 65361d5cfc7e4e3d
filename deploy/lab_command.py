"""``flwr-caesar deploy lab``: try a fleet before there are devices."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from flwr_caesar.runner.superlink import SuperLinkError, executable

from .lab import Lab, LabError
from .network import SERVER, NetworkError, parse_rate, why_not
from .server_folder import CONNECTION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``deploy lab`` can be told."""
    parser.add_argument("--devices", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument(
        "--rate",
        default="2mbit",
        help="of each link, in both directions, such as 500kbit; several for unlike "
        "devices: 1mbit,4mbit (%(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of the reference app (%(default)s)"
    )
    parser.add_argument(
        "--app",
        type=Path,
        metavar="FOLDER",
        help="run this Flower app instead of the reference app; this Python needs what "
        "it needs",
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="run no app: stay until Ctrl-C, for commands of your own",
    )
    parser.add_argument(
        "--home",
        type=Path,
        metavar="FOLDER",
        help="where the server, the devices and all logs are, and stay afterwards; by "
        "default they are removed",
    )


def run_lab(options: argparse.Namespace) -> int:
    """Make a lab, run something in it, and take it down.

    Returns
    -------
    int
        0, 1 if something did not work, 130 after Ctrl-C.
    """
    reason = why_not()
    if reason is not None:
        print(f"flwr-caesar deploy lab: {reason}", file=sys.stderr)
        return 1
    # A process that was started in the background may have been born deaf to Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        rates = [parse_rate(rate) for rate in options.rate.split(",")]
        rates = [rates[i % len(rates)] for i in range(options.devices)]
        with Lab(rates, home=options.home) as lab:
            return _use(lab, options)
    except (LabError, NetworkError, SuperLinkError) as err:
        print(f"flwr-caesar deploy lab: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; everything is taken down", file=sys.stderr)
        return 130


def _use(lab: Lab, options: argparse.Namespace) -> int:
    print(f"server at {SERVER}; everything is below {lab.home}", flush=True)
    lab.start_server()
    for link in lab.links:
        name = f"device-{link.number:02d}"
        ticket = lab.enrol("ticket", name, "--partitions", str(len(lab.links)))
        joined = lab.join(link, ticket.strip())
        if joined.returncode:
            raise LabError(joined.stderr.strip())
        lab.start_node(link)
        print(f"{name} joined, on a link of {link.mbit:g} Mbit/s", flush=True)
    lab.wait_online(len(lab.links))
    print(lab.on_server("fleet", "status"), flush=True)
    if options.stay:
        return _stay(lab)
    print(f"running the app; {lab.home / 'app.log'} is its log", flush=True)
    before = lab.carried()
    status = lab.run_app(*_app(lab, options))
    print(lab.log("app"))
    after = lab.carried()
    print("on the links during the run, TCP and TLS included:")
    for link, (down, up), (first_down, first_up) in zip(
        lab.links, after, before, strict=True
    ):
        print(
            f"  device-{link.number:02d}  {(down - first_down) / 1e3:9.1f} kB down"
            f"  {(up - first_up) / 1e3:9.1f} kB up"
        )
    print("\nin all, at the gate:")
    print(lab.on_server("fleet", "status"))
    return 1 if status else 0


def _app(lab: Lab, options: argparse.Namespace) -> list[str]:
    if options.app is not None:
        app = str(options.app.absolute())
        return [executable("flwr"), "run", app, CONNECTION, "--stream"]
    return [
        *(executable("flwr-caesar"), "run", f"connection={CONNECTION}"),
        *("strategy=caesar", f"rounds={options.rounds}", "federation=local"),
        f"federation.num_supernodes={len(lab.links)}",
        "data.partition.kind=iid",
        f"hydra.run.dir={lab.home / 'run'}",
    ]


def _stay(lab: Lab) -> int:
    print(
        "on the server:  "
        f"sudo ip netns exec {lab.server} env FLWR_CAESAR_SERVER={lab.folder.path} "
        f"FLWR_HOME={lab.folder.flower_home} bash"
    )
    for link in lab.links:
        print(f"on device {link.number}:    sudo ip netns exec {link.namespace} bash")
    print("Ctrl-C takes everything down", flush=True)
    while True:
        time.sleep(3600.0)
