"""Prometheus: ``pip install 'flwr-caesar[prometheus]'``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .sink import Sink

_COUNTED = {
    "bytes_up": ("bytes", "Bytes of arrays in messages.", {"direction": "up"}),
    "bytes_down": ("bytes", "Bytes of arrays in messages.", {"direction": "down"}),
    "devices": ("asked", "Devices that were sent a message.", {}),
    "dropped": ("dropped", "Replies that were not used.", {}),
    "seconds": ("phase_seconds", "From first message to last reply.", {}),
    "seconds_server": ("server_seconds", "That the server computed.", {}),
}
_SHOWN = {
    "waiting_mean": ("waiting_seconds", "Of a device for the last one.", "mean"),
    "waiting_max": ("waiting_seconds", "Of a device for the last one.", "max"),
}


class Prometheus(Sink):
    """Serves figures of a run to a Prometheus that scrapes them.

    docs/exporting/grafana.json is a dashboard of these.

    Parameters
    ----------
    port : int, optional
        Where to listen; `None` serves nothing and leaves that to who owns `registry`.
    address : str
        On which address: by default only this machine reaches it.
    registry : prometheus_client.CollectorRegistry, optional
        By default one of its own.

    Raises
    ------
    ImportError
        Without prometheus_client.
    OSError
        If the port is taken.
    """

    def __init__(
        self,
        port: int | None = 9464,
        *,
        address: str = "127.0.0.1",
        registry: Any = None,
    ) -> None:
        super().__init__()
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            start_http_server,
        )

        self.registry = CollectorRegistry() if registry is None else registry
        known: dict[str, Any] = {"registry": self.registry, "namespace": "flwr_caesar"}
        # Up and down are one metric with a label.
        counted = {name: (text, labels) for name, text, labels in _COUNTED.values()}
        self._counters = {
            name: Counter(name, text, ["phase", *labels], **known)
            for name, (text, labels) in counted.items()
        }
        self._waiting = Gauge(
            "waiting_seconds", _SHOWN["waiting_mean"][1], ["phase", "kind"], **known
        )
        self._gauges = {
            "total/times_fewer": Gauge(
                "times_fewer", "Bytes uncompressed over bytes sent.", **known
            ),
            "test/accuracy": Gauge("accuracy", "Of the model, in [0, 1].", **known),
            "test/loss": Gauge("loss", "Of the model.", **known),
        }
        self._round = Gauge("round", "The round that was last told of.", **known)
        if port is not None:
            start_http_server(port, addr=address, registry=self.registry)

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        """See `Sink.write`."""
        self._round.set(server_round)
        for full, value in figures.items():
            phase, _, name = full.partition("/")
            if full in self._gauges:
                self._gauges[full].set(value)
            elif phase != "total" and name in _COUNTED:
                metric, _, labels = _COUNTED[name]
                self._counters[metric].labels(phase=phase, **labels).inc(value)
            elif name in _SHOWN:
                kind = _SHOWN[name][2]
                self._waiting.labels(phase=phase, kind=kind).set(value)
