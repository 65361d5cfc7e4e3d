"""Virtual seconds of devices: what a clock charges them for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from flwr.app import RecordDict

from flwr_caesar.flower import configs_in
from flwr_caesar.frozen import frozen
from flwr_caesar.records import DeviceRecord

if TYPE_CHECKING:
    from flwr_caesar.plan import VirtualClock

LATE = "after the deadline, by the virtual clock"
_FORWARD = 1 / 3


@frozen
class Work:
    """What a device was asked to compute; 0 for what was left to its app.

    Parameters
    ----------
    batch_size, local_steps, epochs : int
        ``"batch-size"``, ``"local-steps"`` and ``"local-epochs"`` of the message.
    """

    batch_size: int = 0
    local_steps: int = 0
    epochs: int = 0

    @classmethod
    def of(cls, content: RecordDict) -> Work:
        """Read it from a message's configuration."""
        values = {
            key: value
            for record in configs_in(content).values()
            for key, value in record.items()
            if isinstance(value, int)
        }
        return cls(
            values.get("batch-size", 0),
            values.get("local-steps", 0),
            values.get("local-epochs", 0),
        )

    def samples(self, examples: float, *, is_train: bool) -> float:
        """Return on how many samples the device trained, each as often as it did.

        Steps times batch size where the message says both, else the device's examples
        times the epochs. A test is a forward pass only: a third of a training step.
        """
        if not is_train:
            return examples * _FORWARD
        if self.local_steps and self.batch_size:
            return float(self.local_steps * self.batch_size)
        return examples * max(self.epochs, 1)


class DeviceIndex:
    """DeviceIndex of nodes, from 0, in the order of their ids; later ones follow.

    A simulation's devices are pretended ones by number.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def meet(self, node_ids: Iterable[int]) -> None:
        """Give the nodes that are new their numbers."""
        for node_id in sorted(set(node_ids) - self._numbers.keys()):
            self._numbers[node_id] = len(self._numbers)

    def __getitem__(self, node_id: int) -> int:
        """Return the number of a node."""
        self.meet([node_id])
        return self._numbers[node_id]


class Charger:
    """Charges the devices of a federation by a virtual clock.

    Parameters
    ----------
    clock : VirtualClock
        Says how long things take.
    numbers : DeviceIndex
        Which of the clock's devices a node is.
    deadline : float, optional
        Virtual seconds at which a phase closes.
    """

    def __init__(
        self,
        clock: VirtualClock,
        numbers: DeviceIndex,
        *,
        deadline: float | None = None,
    ) -> None:
        self._clock = clock
        self._numbers = numbers
        self._deadline = deadline

    def charge(
        self, server_round: int, device: DeviceRecord, samples: float
    ) -> DeviceRecord:
        """Return the record with its class and its virtual seconds."""
        number = self._numbers[device.node_id] % self._clock.devices
        times = self._clock.times(
            server_round,
            [number],
            bytes_down=device.bytes_down,
            bytes_up=device.bytes_up,
            samples=samples,
        )
        return replace(
            device,
            device_class=self._clock.device_class(number),
            virtual_download=float(times.download[0]),
            virtual_train=float(times.train[0]),
            virtual_upload=float(times.upload[0]),
        )

    def is_late(self, device: DeviceRecord) -> bool:
        """Whether a charged device missed the deadline."""
        return self._deadline is not None and device.virtual_seconds > self._deadline

    def end(self, devices: Iterable[DeviceRecord]) -> float:
        """Return when a phase with these devices ended, in virtual seconds."""
        last = max((device.virtual_seconds for device in devices), default=0.0)
        return last if self._deadline is None else min(last, self._deadline)
