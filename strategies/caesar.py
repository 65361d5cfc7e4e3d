"""Caesar: precision where staleness and importance are high, batches that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.plan.batch import batch_sizes, communication_seconds
from flwr_caesar.plan.clusters import cluster
from flwr_caesar.plan.columns import Floats, Ints
from flwr_caesar.plan.deadline import fit_deadline
from flwr_caesar.plan.fleet import Fleet
from flwr_caesar.plan.rates import rate_for
from flwr_caesar.plan.staleness import download_ratio, staleness
from flwr_caesar.records import DeviceRecord
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import record_nbytes

from .framed import DevicePlan, FramedStrategy
from .lattice_downlink import LatticeDownlink
from .recovery_downlink import RecoveryDownlink
from .wrapper import WrapperOptions

CODECS = ("lattice", "paper")
_HEADER_BYTES = 300


class Caesar(FramedStrategy):
    """Staleness sets the download, importance the upload, speed the batch size.

    After the inner strategy has sampled a round's devices, each gets a plan of its
    own. With ``codec="paper"`` it is the paper's: a model of which a staler device
    gets more weights exactly and recovers the rest from its own last model; the
    largest elements of the update, more of them from a device of more and more even
    data; uniform weights. With ``codec="lattice"``, the default, the same plan sets
    the rate of an entropy-coded upload under error feedback, and the download is the
    exact difference between two published lattice points, which costs the more bits
    the staler a device is by itself.

    Parameters
    ----------
    strategy : Strategy
        The inner strategy.
    codec : {"lattice", "paper"}
        What travels.
    rate : float
        ``lattice``: mean bits a parameter of an upload.
    rate_spread : float
        ``lattice``: the most important device sends at `rate_spread` squared the rate
        of the least important one; 1: all alike.
    step_sigmas, first_bits, shared_start, max_versions : float, int, bool, int
        ``lattice``: see `flwr_caesar.strategies.lattice_downlink.LatticeDownlink`.
    theta_max : float
        ``paper``: largest fraction of a downloaded model that is reduced to signs.
    theta_upload_min, theta_upload_max : float
        Fraction of its update that the most and the least important device drop.
    clusters : int
        ``paper``: most compressed models made in a round.
    staleness_aware, importance_aware : bool
        False gives all devices of a round the mean of what they would have got: the
        control.
    exact_below : int
        Tensors of fewer elements are sent exactly; `None`: 1,024 for ``paper`` and 0
        for ``lattice``, which codes small ones on a finer grid instead.
    max_batch : int
        Largest batch size, for the fastest device; the others get what lets them
        finish with it. 0 leaves batch sizes to the app.
    min_batch : int
        Smallest batch size.
    local_steps : int, optional
        Steps that each device trains in a round; needed with `max_batch`.
    round_seconds : float
        Seconds in which a round should end: each device then gets the best rate
        (``lattice``) and batch size that fit its link and its compute. 0: no limit.
    ask_labels : bool
        Whether to ask a new device once how often it has each label. One that declines
        is ranked by the number of its examples alone.
    **options
        See `WrapperOptions`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = Caesar(FedAvg(fraction_train=0.1))

    References
    ----------
    Yan et al. (2024), arXiv:2412.19989. What is theirs and what is ours is said in
    docs/caesar.md.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        codec: str = "lattice",
        rate: float = 0.25,
        rate_spread: float = 1.5,
        step_sigmas: float = 3.0,
        first_bits: int = 6,
        shared_start: bool = False,
        max_versions: int = 30,
        theta_max: float = 0.6,
        theta_upload_min: float = 0.1,
        theta_upload_max: float = 0.6,
        clusters: int = 4,
        staleness_aware: bool = True,
        importance_aware: bool = True,
        exact_below: int | None = None,
        max_batch: int = 0,
        min_batch: int = 1,
        local_steps: int | None = None,
        round_seconds: float = 0.0,
        ask_labels: bool = True,
        **options: Unpack[WrapperOptions],
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, not {codec!r}")
        if max_batch and not 1 <= min_batch <= max_batch:
            raise ValueError(
                f"min_batch must be 1 to max_batch, {max_batch}, not {min_batch}"
            )
        if max_batch and not local_steps:
            raise ValueError("local_steps must be at least 1 where max_batch is set")
        if round_seconds and not max_batch:
            raise ValueError("round_seconds needs max_batch and local_steps")
        if not 0 <= theta_upload_min <= theta_upload_max < 1:
            raise ValueError(
                "theta_upload_min and theta_upload_max must be a range within [0, 1), "
                f"not {theta_upload_min} to {theta_upload_max}"
            )
        self._is_paper = codec == "paper"
        self._recovery: RecoveryDownlink | None = None
        if exact_below is None:
            exact_below = 1024 if self._is_paper else 0
        self._exact_below = exact_below
        if self._is_paper:
            self._recovery = RecoveryDownlink(exact_below=exact_below)
            super().__init__(strategy, downlink=self._recovery, **options)
            self._uniform_weights = True
        else:
            lattice = LatticeDownlink(
                step_sigmas=step_sigmas,
                first_bits=first_bits,
                shared_start=shared_start,
                exact_below=exact_below,
                max_versions=max_versions,
            )
            super().__init__(strategy, downlink=lattice, error_feedback=True, **options)
        self._rate, self._spread = rate, rate_spread
        self._theta_max = theta_max
        self._theta_upload = theta_upload_min, theta_upload_max
        self._clusters = clusters
        self._staleness_aware = staleness_aware
        self._importance_aware = importance_aware
        self._batches = min_batch, max_batch
        self._local_steps = local_steps or 1
        self._round_seconds = round_seconds
        self._ask_labels = ask_labels
        self._fleet = Fleet()
        # Refuse what the plan's rules refuse now, not in the first round.
        download_ratio([0], 1, theta_max=theta_max)
        cluster([0.0], max_clusters=clusters)
        self._upload_codecs(np.array([theta_upload_min, theta_upload_max]))
        self.upload = self._upload_codecs(np.array([sum(self._theta_upload) / 2]))[0]

    def _plan_phase(
        self, server_round: int, node_ids: list[int], *, is_train: bool
    ) -> dict[int, DevicePlan]:
        assert self._session is not None
        rows = [self._session.row(node_id) for node_id in node_ids]
        devices = [row.device if row else "" for row in rows]
        if self._recovery is not None:
            holds = [self._headers[node_id].base is not None for node_id in node_ids]
            ratios = self._download_ratios(server_round, devices, holds)
            self._recovery.assign(dict(zip(node_ids, ratios.tolist(), strict=True)))
        if not is_train:
            return super()._plan_phase(server_round, node_ids, is_train=is_train)
        slots = self._fleet.slots(devices)
        theta = self._upload_ratios(slots)
        batches: list[dict[str, Any]] = [{} for _ in node_ids]
        rates = self._rates(theta)
        if self._batches[1]:
            sizes, rates = self._fit(node_ids, slots, theta, rates)
            batches = [
                {"batch-size": size, "local-steps": self._local_steps}
                for size in sizes.tolist()
            ]
        codecs = self._upload_codecs(theta, rates)
        return {
            node_id: DevicePlan(
                upload,
                config,
                ask_labels=self._ask_labels and device not in self._fleet,
            )
            for node_id, upload, config, device in zip(
                node_ids, codecs, batches, devices, strict=True
            )
        }

    def _learn(self, server_round: int, devices: Mapping[int, DeviceRecord]) -> None:
        session = self._session
        if session is None or not self._is_train or not session.accepted:
            return
        nodes = sorted(session.accepted)
        ids = [row.device for node in nodes if (row := session.row(node))]
        records = [devices[node] for node in nodes]
        slots = self._fleet.learn(
            ids,
            server_round,
            volumes=[round(record.examples) for record in records],
            labels=[self._reports[node].labels for node in nodes],
        )
        configs = [self._plans[node].config for node in nodes]
        samples = [c.get("batch-size", 0) * c.get("local-steps", 0) for c in configs]
        self._observe(slots, records, samples)
        for node, device in zip(nodes, ids, strict=True):
            session.note(node, self._fleet.pack(device))

    def _observe(
        self, slots: Ints, records: list[DeviceRecord], samples: list[int]
    ) -> None:
        estimates = self._fleet.estimates
        down = [record.bytes_down for record in records]
        up = [record.bytes_up for record in records]
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
                seconds=[_transfer_seconds(record) for record in records],
            )

    def _restore(self, state: StrategyState) -> None:
        super()._restore(state)
        self._fleet.restore(self._ledger.facts())

    def _download_ratios(
        self, server_round: int, devices: list[str], holds: list[bool]
    ) -> Floats:
        delta = staleness(self._fleet.last_rounds(devices), server_round)
        ratios = download_ratio(
            delta, server_round, theta_max=self._theta_max, holds_model=holds
        )
        if not self._staleness_aware and any(holds):
            ratios = np.where(holds, ratios[np.array(holds)].mean(), 0.0)
        found = cluster(ratios, max_clusters=self._clusters).device_ratios
        return np.round(found, 6)

    def _upload_ratios(self, slots: Ints) -> Floats:
        low, high = self._theta_upload
        if not self._importance_aware:
            return np.full(len(slots), (low + high) / 2)
        return self._fleet.population.upload_ratio(slots, theta_min=low, theta_max=high)

    def _rates(self, theta: Floats) -> Floats:
        low, high = self._theta_upload
        return rate_for(
            theta,
            base_rate=self._rate,
            spread=self._spread if self._importance_aware else 1.0,
            theta_min=low,
            theta_max=high,
        )

    def _upload_codecs(self, theta: Floats, rates: Floats | None = None) -> list[Codec]:
        if self._is_paper:
            return [
                get_codec(
                    {
                        "id": "topk",
                        "density": round(1 - ratio, 6),
                        "values": "float32",
                        "exact_below": self._exact_below,
                    }
                )
                for ratio in theta.tolist()
            ]
        chosen = self._rates(theta) if rates is None else rates
        return [
            get_codec(
                {
                    "id": "lattice",
                    "rate": round(rate, 4),
                    "exact_below": self._exact_below,
                    "fine_below": 1024,
                }
            )
            for rate in chosen.tolist()
        ]

    def _fit(
        self, node_ids: list[int], slots: Ints, theta: Floats, rates: Floats
    ) -> tuple[Ints, Floats]:
        """Return batch sizes and rates that suit the devices' links and compute."""
        estimates = self._fleet.estimates
        seconds = estimates.seconds_per_sample.predict(slots)
        up = estimates.up_bytes_per_second.predict(slots)
        down = np.array([self._download_bytes(node_id) for node_id in node_ids])
        parameters = self._num_parameters()
        low, high = self._batches
        links = {
            "down_bytes_per_second": estimates.down_bytes_per_second.predict(slots),
            "up_bytes_per_second": up,
        }
        if self._round_seconds:
            sent = _topk_bits(theta) * parameters / 8 if self._is_paper else 0.0
            plan = fit_deadline(
                self._round_seconds,
                fixed_seconds=communication_seconds(
                    down, sent + _HEADER_BYTES, **links
                ),
                seconds_per_sample=seconds,
                up_bytes_per_second=up,
                parameters=parameters,
                local_steps=self._local_steps,
                max_batch=high,
                min_batch=low,
                max_rate=rates,
                min_rate=min(0.05, float(rates.min())),
                compute_weight=1.0 if self._is_paper else 0.5,
            )
            return plan.batch_sizes, plan.rates
        bits = _topk_bits(theta) if self._is_paper else rates
        sizes = batch_sizes(
            seconds_per_sample=seconds,
            comm_seconds=communication_seconds(
                down, bits * parameters / 8 + _HEADER_BYTES, **links
            ),
            local_steps=self._local_steps,
            max_batch=high,
            min_batch=low,
        )
        return sizes, rates

    def _num_parameters(self) -> int:
        tensors = self._layout.tensors if self._layout else ()
        return max(sum(spec.size for spec in tensors), 1)

    def _download_bytes(self, node_id: int) -> int:
        header = self._headers[node_id]
        if header.base == header.target:
            return _HEADER_BYTES
        return record_nbytes(self.downlink.frame(node_id, header)) + _HEADER_BYTES


def _transfer_seconds(record: DeviceRecord) -> float:
    own = record.seconds_train + record.seconds_encode + record.seconds_decode
    return record.seconds_round_trip - own


def _topk_bits(theta: Floats) -> Floats:
    """Return bits a parameter of the largest elements in float32, with positions."""
    kept = np.clip(1 - theta, 1e-9, 1 - 1e-9)
    entropy = -kept * np.log2(kept) - (1 - kept) * np.log2(1 - kept)
    return np.asarray(32 * kept + entropy, np.float64)
