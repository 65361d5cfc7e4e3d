"""Caesar with our codec: uploads as fine as is felt, exact changes of models."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.codec.predictors.outer_products import MIN_SIZE
from flwr_caesar.plan.columns import Floats
from flwr_caesar.plan.precision import upload_error
from flwr_caesar.plan.rates import rate_for
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState

from .caesar_plan import CaesarPlan, Importance, Workload
from .lattice_downlink import LatticeDownlink
from .phase import Device, Outcome, Phase

FEW = 4096
"""Elements up to which no block has tables, and to name a compact one costs bytes."""

_STATE = "bits_of_error"
# To nearest: what is left out has no direction, and under feedback is not late. Of 16
# bits many elements lie half-way between two values: the smaller is as near, and cheap.
_TO_NEAREST = 0.501
_NOTHING = 1e-3  # below it nobody feels where an error lies, and 16 bytes count
_GAUSSIAN_BITS = 0.5  # that halve the squared error of a normal variable
_LEAST_BITS, _MOST_BITS = 0.01, 64.0
_ERRORS = 1e-12, 0.999  # what the codec can be asked for, however bits are spread
_RATES = 1e-4, 16.0


class CaesarLattice(CaesarPlan):
    """Entropy-coded uploads under error feedback, models on a lattice.

    Parameters
    ----------
    downlink : LatticeDownlink
        How the model goes down.
    importance : Importance
        What devices drop; here, how the bits of their uploads differ.
    workload : Workload
        What they train.
    rate, nmse : float, optional
        Bits an element of an upload, or its relative squared error. `None` of both:
        the error of `flwr_caesar.plan.precision.upload_error`.
    rate_spread : float
        See `Caesar`.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    upload_memory : int
        See `ServerMethod`; with 0 no update is coded by the last one.
    rank : int
        See `Caesar`.
    """

    def __init__(
        self,
        downlink: LatticeDownlink,
        importance: Importance,
        workload: Workload,
        *,
        rate: float | None,
        nmse: float | None,
        rate_spread: float,
        exact_below: int,
        upload_memory: int,
        rank: int,
    ) -> None:
        self._rank = rank
        self._rate, self._nmse, self._spread = rate, nmse, rate_spread
        self._exact_below = exact_below
        self._memory = upload_memory > 0
        self._bits = _GAUSSIAN_BITS
        super().__init__(
            downlink,
            importance,
            workload,
            compute_weight=0.5,
            error_feedback=True,
            upload_memory=upload_memory,
        )

    def rates(self, theta: Floats, elements: int) -> Floats:
        """See `CaesarPlan.rates`; for an error, what such errors took so far."""
        shares = rate_for(
            theta,
            base_rate=1.0 if self._rate is None else self._rate,
            spread=self._spread if self._importance.is_used else 1.0,
            theta_min=self._importance.theta_min,
            theta_max=self._importance.theta_max,
        )
        if self._rate is not None:
            return shares
        error = self._nmse or upload_error(elements)
        return np.asarray(-np.log2(error) * self._bits * shares / shares.mean())

    def codecs(self, theta: Floats, rates: Floats, elements: int) -> list[Codec]:
        """See `CaesarPlan.codecs`; a rate is asked for where a deadline lowered it."""
        if self._rate is not None:
            return [
                self._codec("rate", round(rate, 4), elements) for rate in rates.tolist()
            ]
        meant = self.rates(theta, elements)
        errors = np.clip(np.exp2(-meant / self._bits), *_ERRORS)
        lowered = rates < meant * (1 - 1e-9)
        return [
            self._codec("rate", round(rate, 4), elements)
            if is_lowered
            else self._codec("nmse", float(f"{error:.3g}"), elements)
            for rate, error, is_lowered in zip(
                np.clip(rates, *_RATES).tolist(),
                errors.tolist(),
                lowered.tolist(),
                strict=True,
            )
        ]

    def after(self, phase: Phase, present: Collection[Device]) -> Outcome:
        """Learn what errors take in bits, then see `CaesarPlan.after`."""
        if phase.is_train and phase.layout:
            elements = max(phase.layout.num_params, 1)
            found = [
                -8 * phase.records[node].bytes_up / elements / np.log2(error)
                for node in phase.replies
                if (error := _error(phase, node))
            ]
            if found:
                bits = float(statistics.median(found))
                self._bits = min(max(bits, _LEAST_BITS), _MOST_BITS)
        return super().after(phase, present)

    def state(self) -> StrategyState:
        """See `ServerMethod.state`."""
        state = super().state()
        return replace(state, tree={**state.tree, _STATE: self._bits})

    def restore(self, state: StrategyState, facts: Mapping[str, bytes]) -> None:
        """See `ServerMethod.restore`; older states do not tell what errors take."""
        try:
            bits = float(state.tree.get(_STATE, _GAUSSIAN_BITS))
            if not _LEAST_BITS <= bits <= _MOST_BITS:
                raise ValueError(f"{bits} bits")
        except (TypeError, ValueError) as err:
            raise DamagedStateError(
                f"what errors of uploads take is malformed: {err!r}"
            ) from err
        super().restore(state, facts)
        self._bits = bits

    def _codec(self, target: str, value: float, elements: int) -> Codec:
        config = {
            "id": "lattice",
            target: value,
            "exact_below": self._exact_below,
            "fine_below": 1024,
            "compact": elements >= FEW or self._memory,
            "memory": self._memory,
        }
        if target == "rate" or value > _NOTHING:
            config["dead_zone"] = _TO_NEAREST
        if self._rank and target == "nmse" and elements >= MIN_SIZE:
            config["rank"] = self._rank
        return get_codec(config)


def _error(phase: Phase, node_id: int) -> float:
    """Return the relative squared error that a node was asked for; 0 if for none."""
    plan = phase.requests[node_id].plan
    return float(plan.upload.config.get("nmse", 0.0)) if plan else 0.0
