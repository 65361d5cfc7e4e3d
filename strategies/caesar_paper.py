"""Caesar as published: models that devices recover, and their largest updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.plan.clusters import cluster
from flwr_caesar.plan.columns import Floats
from flwr_caesar.plan.staleness import download_ratio, staleness

from .caesar_plan import CaesarPlan, Importance, Workload
from .phase import Device, DevicePlan, Phase
from .recovery_downlink import RecoveryDownlink


class CaesarPaper(CaesarPlan):
    """Staleness sets how much of a model is sent as signs, importance what comes up.

    Parameters
    ----------
    importance : Importance
        What devices drop of their updates.
    workload : Workload
        What they train.
    theta_max : float
        Largest fraction of a downloaded model that is reduced to signs.
    clusters : int
        Most compressed models made in a round.
    staleness_aware : bool
        False gives all devices of a round the mean of what they would have got.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    """

    def __init__(
        self,
        importance: Importance,
        workload: Workload,
        *,
        theta_max: float,
        clusters: int,
        staleness_aware: bool,
        exact_below: int,
    ) -> None:
        # Refuse what the plan's rules refuse now, not in the first round.
        download_ratio([0], 1, theta_max=theta_max)
        cluster([0.0], max_clusters=clusters)
        self._theta_max = theta_max
        self._clusters = clusters
        self._staleness_aware = staleness_aware
        self._exact_below = exact_below
        self._recovery = RecoveryDownlink(exact_below=exact_below)
        super().__init__(
            self._recovery,
            importance,
            workload,
            compute_weight=1.0,
            uniform_weights=True,
        )

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Choose the download's ratios, then see `CaesarPlan.plan`."""
        ratios = self._download_ratios(phase.server_round, devices)
        nodes = [device.node_id for device in devices]
        self._recovery.assign(dict(zip(nodes, ratios.tolist(), strict=True)))
        return super().plan(phase, devices)

    def rates(self, theta: Floats, elements: int) -> Floats:
        """See `CaesarPlan.rates`; a deadline is met by batch sizes alone."""
        return np.ones(len(theta))

    def codecs(self, theta: Floats, rates: Floats, elements: int) -> list[Codec]:
        """See `CaesarPlan.codecs`."""
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

    def sent_bits(self, theta: Floats) -> Floats:
        """Return the bits of the largest elements in float32, with positions."""
        kept = np.clip(1 - theta, 1e-9, 1 - 1e-9)
        entropy = -kept * np.log2(kept) - (1 - kept) * np.log2(1 - kept)
        return np.asarray(32 * kept + entropy, np.float64)

    def _download_ratios(self, server_round: int, devices: Sequence[Device]) -> Floats:
        holds = [device.header.base is not None for device in devices]
        ratios = download_ratio(
            staleness(self.last_rounds(devices), server_round),
            server_round,
            theta_max=self._theta_max,
            holds_model=holds,
        )
        if not self._staleness_aware and any(holds):
            ratios = np.where(holds, ratios[np.array(holds)].mean(), 0.0)
        found = cluster(ratios, max_clusters=self._clusters).device_ratios
        return np.round(found, 6)
