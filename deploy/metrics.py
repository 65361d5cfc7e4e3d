"""The gate's counters for Prometheus, served on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .fleet import Device
from .server_folder import LOOPBACK
from .traffic import Traffic

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(
    traffic: Traffic, devices: Iterable[Device], *, certificate_days: float
) -> str:
    """Return the counters in Prometheus' text format.

    Parameters
    ----------
    traffic : Traffic
        Of the gate since it started.
    devices : iterable of Device
        The fleet.
    certificate_days : float
        For how long the gate's certificate is still valid.
    """
    by_key, others, answers = traffic.snapshot()
    prefix = "flwr_caesar_gate"
    lines = [
        f"# HELP {prefix}_bytes_total HTTP bytes from (up) and to (down) a device.",
        f"# TYPE {prefix}_bytes_total counter",
    ]
    totals = [
        (device.name, by_key[device.public_key])
        for device in devices
        if device.public_key in by_key
    ]
    for name, total in [*totals, ("", others)]:
        for direction, count in (("up", total.up), ("down", total.down)):
            labels = f'device="{name}",direction="{direction}"'
            lines.append(f"{prefix}_bytes_total{{{labels}}} {count}")
    lines += [
        f"# HELP {prefix}_answers_total Answers to devices, by HTTP status.",
        f"# TYPE {prefix}_answers_total counter",
        *(
            f'{prefix}_answers_total{{status="{status}"}} {count}'
            for status, count in sorted(answers.items())
        ),
        f"# HELP {prefix}_certificate_days Until the gate's certificate expires.",
        f"# TYPE {prefix}_certificate_days gauge",
        f"{prefix}_certificate_days {certificate_days:.3f}",
    ]
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Serves ``/metrics`` on loopback, from a thread of its own.

    Parameters
    ----------
    port : int
        Where.
    text : callable
        Returns what is served; called for each request.
    """

    def __init__(self, port: int, text: Callable[[], str]) -> None:
        def metrics(_: Request) -> Response:
            return PlainTextResponse(text(), media_type=_TYPE)

        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=[Route("/metrics", metrics)]),
                host=LOOPBACK,
                port=port,
                log_config=None,
                access_log=False,
                ws="none",
                loop="asyncio",
            )
        )
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def _run(self) -> None:
        try:
            self._server.run()
        except SystemExit:
            return  # the port is taken, as uvicorn's log says; the gate goes on

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=5.0)
