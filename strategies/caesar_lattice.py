"""Caesar with our codec: rates by importance, exact changes of published models."""

from __future__ import annotations

from flwr_caesar.codec import Codec, get_codec
from flwr_caesar.plan.by_size import by_size
from flwr_caesar.plan.columns import Floats
from flwr_caesar.plan.rates import rate_for

from .caesar_plan import CaesarPlan, Importance, Workload
from .lattice_downlink import LatticeDownlink


class CaesarLattice(CaesarPlan):
    """Entropy-coded uploads under error feedback, models on a lattice.

    Parameters
    ----------
    downlink : LatticeDownlink
        How the model goes down.
    importance : Importance
        What devices drop; here, how their rates differ.
    workload : Workload
        What they train.
    rate, rate_spread : float
        See `Caesar`.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    """

    def __init__(
        self,
        downlink: LatticeDownlink,
        importance: Importance,
        workload: Workload,
        *,
        rate: float | None,
        rate_spread: float,
        exact_below: int,
    ) -> None:
        self._rate, self._spread = rate, rate_spread
        self._exact_below = exact_below
        super().__init__(
            downlink, importance, workload, compute_weight=0.5, error_feedback=True
        )

    def rates(self, theta: Floats, elements: int) -> Floats:
        """See `CaesarPlan.rates`."""
        own = by_size(elements, small=3.0, usual=0.3)
        return rate_for(
            theta,
            base_rate=own if self._rate is None else self._rate,
            spread=self._spread if self._importance.is_used else 1.0,
            theta_min=self._importance.theta_min,
            theta_max=self._importance.theta_max,
        )

    def codecs(self, theta: Floats, rates: Floats) -> list[Codec]:
        """See `CaesarPlan.codecs`."""
        return [
            get_codec(
                {
                    "id": "lattice",
                    "rate": round(rate, 4),
                    "exact_below": self._exact_below,
                    "fine_below": 1024,
                }
            )
            for rate in rates.tolist()
        ]
