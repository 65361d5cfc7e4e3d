"""What both kinds of Caesar plan: importance of data, batch sizes that fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY

import numpy as np

from flwr_caesar.codec import Codec
from flwr_caesar.frozen import frozen
from flwr_caesar.plan.batch import batch_sizes, communication_seconds
from flwr_caesar.plan.by_size import LARGE
from flwr_caesar.plan.columns import Floats, Ints
from flwr_caesar.plan.deadline import fit_deadline
from flwr_caesar.plan.fleet import Fleet
from flwr_caesar.plan.power_modes import PowerModes
from flwr_caesar.records import DeviceRecord
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import record_nbytes

from .downlink import Downlink
from .method import ServerMethod
from .phase import Device, DevicePlan, Outcome, Phase
from .recorder import taken_of

_HEADER_BYTES = 300
# How long messages lie about in the mean: a SuperNode asks for one every 3 s, looks for
# a new task every second and for its reply every 0.5 s; the ServerApp asks for replies
# every 2 s at the latest.
POLLING_SECONDS = 3.0


@frozen
class Workload:
    """How much devices train, and who may decide less.

    Parameters
    ----------
    local_steps : int, optional
        Steps that each device trains in a round, whatever its batch size; `None`
        leaves steps and batch size to the app.
    max_batch, min_batch : int
        Largest batch size, for the fastest device, and smallest.
    round_seconds : float
        Seconds in which a round should end; 0: no limit.
    """

    _: KW_ONLY
    local_steps: int | None = None
    max_batch: int = 32
    min_batch: int = 1
    round_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.max_batch:
            raise ValueError(
                f"min_batch must be 1 to max_batch, {self.max_batch}, not "
                f"{self.min_batch}"
            )
        if self.local_steps is not None and self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, not {self.local_steps}")
        if self.round_seconds and self.local_steps is None:
            raise ValueError("round_seconds needs local_steps")


@frozen
class Importance:
    """How much less a device of less important data sends.

    Parameters
    ----------
    theta_min, theta_max : float
        Fraction of its update that the most and the least important device drop.
    is_used : bool
        False: all devices get the mean of the two.
    ask_labels : bool
        Whether to ask a new device once for its label counts.
    """

    _: KW_ONLY
    theta_min: float = 0.1
    theta_max: float = 0.6
    is_used: bool = True
    ask_labels: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.theta_min <= self.theta_max < 1:
            raise ValueError(
                "theta_upload_min and theta_upload_max must be a range within [0, 1), "
                f"not {self.theta_min} to {self.theta_max}"
            )


class CaesarPlan(ServerMethod):
    """Importance sets the upload, speed the batch size.

    Parameters
    ----------
    downlink : Downlink
        How the model goes down.
    importance : Importance
        What devices drop.
    workload : Workload
        What they train.
    compute_weight : float
        How far a deadline is met by smaller batches rather than by lower rates.
    error_feedback, uniform_weights : bool
        See `ServerMethod`.
    upload_memory : int
        See `ServerMethod`.
    """

    counts_nodes = True

    def __init__(
        self,
        downlink: Downlink,
        importance: Importance,
        workload: Workload,
        *,
        compute_weight: float,
        error_feedback: bool = False,
        uniform_weights: bool = False,
        upload_memory: int = 0,
    ) -> None:
        self._importance = importance
        self._workload = workload
        self._compute_weight = compute_weight
        self._fleet = Fleet()
        self._power_modes = PowerModes()
        # Refuse what the codecs refuse now, not in the first round.
        bounds = np.array([importance.theta_min, importance.theta_max])
        self.codecs(bounds, self.rates(bounds, LARGE), LARGE)
        middle = np.array([bounds.mean()])
        super().__init__(
            downlink=downlink,
            upload=lambda n: self.codecs(middle, self.rates(middle, n), n)[0],
            error_feedback=error_feedback,
            uniform_weights=uniform_weights,
            upload_memory=upload_memory,
        )

    @abstractmethod
    def rates(self, theta: Floats, elements: int) -> Floats:
        """Return the bits an element that an upload takes, by what is dropped.

        Parameters
        ----------
        theta : ndarray of float64, shape (n,)
            Fractions that devices drop.
        elements : int
            Floating-point elements of the model.
        """

    @abstractmethod
    def codecs(self, theta: Floats, rates: Floats, elements: int) -> list[Codec]:
        """Return the codec of each device's upload.

        Parameters
        ----------
        theta, elements
            As for `rates`.
        rates : ndarray of float64, shape (n,)
            What `rates` returned, or less where a deadline asks for it.
        """

    def sent_bits(self, theta: Floats) -> Floats | None:
        """Return the bits a parameter that a deadline cannot lower; None if it can."""
        return None

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Plan the upload and the batch size of each device."""
        if not phase.is_train:
            return super().plan(phase, devices)
        ids = [device.row.device if device.row else "" for device in devices]
        slots = self._fleet.slots(ids)
        theta = self._theta(slots, phase.federation)
        rates = self.rates(theta, _elements(phase))
        steps = self._workload.local_steps
        configs: list[dict[str, int]] = [{} for _ in devices]
        if steps is not None:
            sizes, rates = self._fit(phase, steps, devices, slots, theta, rates)
            configs = [
                {"batch-size": size, "local-steps": steps} for size in sizes.tolist()
            ]
        codecs = self.codecs(theta, rates, _elements(phase))
        return {
            device.node_id: DevicePlan(
                upload,
                config,
                ask_labels=self._importance.ask_labels and name not in self._fleet,
            )
            for device, upload, config, name in zip(
                devices, codecs, configs, ids, strict=True
            )
        }

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Learn volumes, labels and times from the replies that were used."""
        known = [d for d in present if d.node_id in phase.replies and d.row]
        if not phase.is_train or not known:
            return Outcome()
        known.sort(key=lambda device: device.node_id)
        ids = [device.row.device for device in known if device.row]
        records = [phase.records[device.node_id] for device in known]
        slots = self._fleet.learn(
            ids,
            phase.server_round,
            volumes=[round(record.examples) for record in records],
            labels=[phase.replies[device.node_id].report.labels for device in known],
        )
        modes = {n: r.telemetry.power_mode for n, r in zip(ids, records, strict=True)}
        changed = self._power_modes.changed(modes)
        # Two rounds at the new speed are learnt faster than the old one is outvoted.
        self._fleet.estimates.forget_compute(self._fleet.slots(changed))
        self._observe(slots, records)
        return Outcome(
            {
                device.node_id: self._fleet.pack(name)
                for device, name in zip(known, ids, strict=True)
            }
        )

    def restore(self, state: StrategyState, facts: Mapping[str, bytes]) -> None:
        """See `ServerMethod.restore`."""
        super().restore(state, facts)
        self._fleet.restore(facts)

    def last_rounds(self, devices: Sequence[Device]) -> Ints:
        """Return the round in which each device took part last."""
        ids = [device.row.device if device.row else "" for device in devices]
        return self._fleet.last_rounds(ids)

    def _theta(self, slots: Ints, federation: int) -> Floats:
        low, high = self._importance.theta_min, self._importance.theta_max
        if not self._importance.is_used:
            return np.full(len(slots), (low + high) / 2)
        return self._fleet.population.upload_ratio(
            slots, theta_min=low, theta_max=high, federation=federation
        )

    def _observe(self, slots: Ints, records: list[DeviceRecord]) -> None:
        estimates = self._fleet.estimates
        down = [record.bytes_down for record in records]
        up = [record.bytes_up for record in records]
        steps = self._workload.local_steps is not None
        samples = [
            r.batch_size * r.local_steps * taken_of(r.telemetry) if steps else 0.0
            for r in records
        ]
        virtual = all(record.virtual_train > 0 for record in records)
        train = [r.virtual_train if virtual else r.seconds_train for r in records]
        estimates.observe_training(slots, seconds=train, samples=samples)
        if virtual:
            estimates.observe_link(
                slots,
                bytes_down=down,
                seconds_down=[record.virtual_download for record in records],
                bytes_up=up,
                seconds_up=[record.virtual_upload for record in records],
            )
        else:
            estimates.observe_transfer(
                slots,
                bytes_down=down,
                bytes_up=up,
                seconds=[_beside_work(record) for record in records],
                started=[record.seconds_start for record in records],
                polling=POLLING_SECONDS,
            )

    def _fit(
        self,
        phase: Phase,
        local_steps: int,
        devices: Sequence[Device],
        slots: Ints,
        theta: Floats,
        rates: Floats,
    ) -> tuple[Ints, Floats]:
        """Return batch sizes and rates that suit the devices' links and compute."""
        estimates, workload = self._fleet.estimates, self._workload
        seconds = estimates.seconds_per_sample.predict(slots)
        up = estimates.up_bytes_per_second.predict(slots)
        down = np.array([self._download_bytes(device) for device in devices])
        tensors = phase.layout.tensors if phase.layout else ()
        parameters = max(sum(spec.size for spec in tensors), 1)
        overhead = estimates.overhead_seconds.predict(slots)
        links = {
            "down_bytes_per_second": estimates.down_bytes_per_second.predict(slots),
            "up_bytes_per_second": up,
        }
        bits = self.sent_bits(theta)
        if workload.round_seconds:
            sent = 0.0 if bits is None else bits * parameters / 8
            plan = fit_deadline(
                workload.round_seconds,
                fixed_seconds=overhead
                + communication_seconds(down, sent + _HEADER_BYTES, **links),
                seconds_per_sample=seconds,
                up_bytes_per_second=up,
                parameters=parameters,
                local_steps=local_steps,
                max_batch=workload.max_batch,
                min_batch=workload.min_batch,
                max_rate=rates,
                min_rate=min(0.05, float(rates.min())),
                compute_weight=self._compute_weight,
            )
            return plan.batch_sizes, plan.rates
        sent = (rates if bits is None else bits) * parameters / 8
        sizes = batch_sizes(
            seconds_per_sample=seconds,
            comm_seconds=overhead
            + communication_seconds(down, sent + _HEADER_BYTES, **links),
            local_steps=local_steps,
            max_batch=workload.max_batch,
            min_batch=workload.min_batch,
        )
        return sizes, rates

    def _download_bytes(self, device: Device) -> int:
        header = device.header
        if header.base == header.target and not self.downlink.again(device.node_id):
            return _HEADER_BYTES
        frame = self.downlink.frame(device.node_id, header)
        return record_nbytes(frame) + _HEADER_BYTES


def _elements(phase: Phase) -> int:
    return phase.layout.num_params if phase.layout else LARGE


def _beside_work(record: DeviceRecord) -> float:
    own = record.seconds_train + record.seconds_encode + record.seconds_decode
    return record.seconds_round_trip - own
