"""What goes on around a message on a deployed device: policy before it, costs after it.

A process that ``flwr-caesar node`` started finds its ``node.toml`` in the environment;
elsewhere, as in a simulation, there is nothing to watch and nothing is measured.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime
from pathlib import Path

from .node_file import ENVIRONMENT, NodeFile
from .policy import Decision, Kind, decide
from .readings import read_readings
from .telemetry import Meter, Telemetry
from .telemetry.textfile import write_prometheus


class DeviceWatch:
    """Watches a device while it handles one message.

    Parameters
    ----------
    node : NodeFile, optional
        The device's; `None` where there is nothing to watch.
    root : Path
        Where the machine's file system begins.

    Attributes
    ----------
    decision : Decision
        What the device does with a message that asks it to train.
    declines : str
        Why it does not train; empty if it does.
    """

    def __init__(self, node: NodeFile | None, root: Path = Path("/")) -> None:
        self._node = node
        self.decision = Decision()
        self._fraction: float | None = None
        self._meter: Meter | None = None
        if node is None:
            return
        now = datetime.now().astimezone()
        readings = read_readings(node, now, root)
        self.decision = decide(readings, node.limits, node.metered, now)
        self._meter = Meter(root)

    @classmethod
    def start(cls) -> DeviceWatch:
        """Begin, with the ``node.toml`` of this process's environment.

        Raises
        ------
        NodeFileError
            If there is one and it cannot be used.
        """
        path = os.environ.get(ENVIRONMENT)
        return cls(NodeFile.load(path) if path else None)

    @property
    def declines(self) -> str:
        """Why it does not train; empty if it does."""
        return self.decision.reason if self.decision.kind is Kind.DECLINED else ""

    @property
    def takes_fewer(self) -> bool:
        """Whether it trains with fewer steps than it is asked for."""
        return self.decision.kind is Kind.FEWER

    def steps(self, asked: int) -> int:
        """Return the local steps, or epochs, to take of those asked for; at least one.

        What is left of them is told with the telemetry.
        """
        taken = max(1, round(asked * self.decision.steps)) if asked > 0 else asked
        if taken < asked:
            self._fraction = taken / asked
        return taken

    def decline(self) -> None:
        """Note that the message asked it to train, and that it does not."""
        self._fraction = 0.0

    def stop(self) -> Telemetry | None:
        """End, and return what the message cost; `None` where nothing is watched.

        The same is left in the device's state folder for Prometheus. A device that was
        not asked to train, or whose app was asked for one step, did all it was asked.
        """
        if self._node is None or self._meter is None:
            return None
        fraction = self._fraction
        measured = self._meter.stop(
            policy="" if fraction is None else _told(self.decision),
            steps_fraction=fraction,
        )
        with contextlib.suppress(OSError):
            write_prometheus(
                self._node.state_dir,
                measured,
                device=self._node.name,
                finished=time.time(),
            )
        return measured


def _told(decision: Decision) -> str:
    if decision.kind is Kind.FULL:
        return ""
    return f"{decision.kind}: {decision.reason}"
