"""Caesar as published: models that devices recover, and their largest updates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.methods.recovery import RecoverySettings
from flwr_caesar.plan.clusters import cluster
from flwr_caesar.plan.columns import Floats
from flwr_caesar.plan.staleness import download_ratio, staleness
from flwr_caesar.sync.state import Version

from .caesar_plan import CaesarPlan, Importance, Workload
from .phase import Device, DevicePlan, Outcome, Phase
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
    resend_lost : bool
        Whether a device adds an upload that did not count to its next one.
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
        resend_lost: bool = True,
    ) -> None:
        # Refuse what the plan's rules refuse now, not in the first round.
        download_ratio([0], 1, theta_max=theta_max)
        cluster([0.0], max_clusters=clusters)
        self._theta_max = theta_max
        self._clusters = clusters
        self._staleness_aware = staleness_aware
        self._exact_below = exact_below
        self._resend_lost = resend_lost
        self._recovery = RecoveryDownlink(exact_below=exact_below)
        self._asked: dict[int, tuple[Version | None, float]] = {}
        self._recovered: dict[str, tuple[Version | None, float]] = {}
        super().__init__(
            self._recovery,
            importance,
            workload,
            compute_weight=1.0,
            uniform_weights=True,
        )

    def plan(self, phase: Phase, devices: Sequence[Device]) -> Mapping[int, DevicePlan]:
        """Choose the download's ratios, then see `CaesarPlan.plan`.

        A device that holds the version already is trained on what its own ratio makes
        of it, not on what it recovered for a test, at the ratio of that time.
        """
        ratios = self._download_ratios(phase.server_round, devices)
        nodes = [device.node_id for device in devices]
        asked = dict(zip(nodes, ratios.tolist(), strict=True))
        version = self._recovery.version
        now = {
            name: held for name, held in self._recovered.items() if held[0] == version
        }
        self._recovered = now
        holding = [d for d in devices if d.header.base == d.header.target]
        again = {
            device.node_id
            for device in holding
            if phase.is_train
            and _recovers(device)
            and now.get(_name(device)) != (version, asked[device.node_id])
        }
        self._asked = {n: (version, ratio) for n, ratio in asked.items()}
        for device in holding:  # which goes on with what it has
            if device.node_id not in again:
                del self._asked[device.node_id]
        self._recovery.assign(asked, again=again)
        plans = super().plan(phase, devices)
        if self._resend_lost or not phase.is_train:
            return plans
        settings, part = RecoverySettings(resend_lost=False), self._recovery.part
        return {
            node_id: replace(plan, settings=settings, part=part)
            for node_id, plan in plans.items()
        }

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Note at which ratio devices recovered what they hold; see `CaesarPlan`."""
        for device in present:
            if device.node_id in phase.replies and device.node_id in self._asked:
                self._recovered[_name(device)] = self._asked[device.node_id]
        return super().after(phase, present)

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


def _recovers(device: Device) -> bool:
    """Whether a device reads the paper's frames; others have the exact model."""
    return device.can is None or "caesar_model" in device.can.codecs


def _name(device: Device) -> str:
    return device.row.device if device.row else ""
