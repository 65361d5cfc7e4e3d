"""Models published on a lattice, and exact differences between any two of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Array, Layout
from flwr_caesar.codec.published.lattice_model import LatticeRules
from flwr_caesar.codec.published.model_steps import FIRST_BITS
from flwr_caesar.codec.published.publication import PointHistory
from flwr_caesar.frozen import frozen
from flwr_caesar.plan import precision
from flwr_caesar.results.amounts import amount
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import frame_to_record

from .downlink import Downlink
from .machine_memory import remembered_bytes

_MOST_SIGMAS = math.sqrt(12)
_WINDOW = 32
"""How many devices' ages are enough for a median that is steady."""


class LatticeDownlink(Downlink):
    """Publish each model on a power-of-two lattice; send who holds one only the change.

    What rounding leaves unpublished is published later, so devices follow the server's
    model. A device that was away for some versions gets one exact difference to its
    own; who holds the same version gets the same frame.

    Parameters
    ----------
    step_sigmas : float, optional
        The step, at most, in deviations of what changed since the model that devices
        mostly hold, by the median of the last 32 devices, or of a round that has more;
        larger: fewer bits, coarser models. By default
        `flwr_caesar.plan.precision.step_sigmas`.
    shared_start : bool
        Whether devices can make the first model of their app's own initial arrays
        (`flwr_caesar.clients.CompressionMod`).
    first_bits : int
        The first step of a tensor is its root mean square in the initial model divided
        by 2 to the power of this. A random initial model may be as coarse as 0 bits,
        which makes whole models cheap; a trained one wants 6 or more.
    exact_below : int
        Tensors of fewer elements are sent exactly.
    max_versions : int
        Older models remembered; a device that holds one older still gets a whole model.
    max_bytes : int, optional
        Most memory of them; by default an eighth of what this process may use.
    """

    def __init__(
        self,
        *,
        step_sigmas: float | None = None,
        shared_start: bool = False,
        first_bits: int = FIRST_BITS,
        exact_below: int = 0,
        max_versions: int = 100,
        max_bytes: int | None = None,
    ) -> None:
        if step_sigmas is not None and not 0 < step_sigmas < _MOST_SIGMAS:
            raise ValueError(
                f"step_sigmas must be above 0 and below {_MOST_SIGMAS:.2f}, with which "
                f"steps would grow from model to model, not {step_sigmas}"
            )
        if not 0 <= first_bits <= 16:
            raise ValueError(f"first_bits must be 0 to 16, not {first_bits}")
        if max_bytes is not None and max_bytes < 0:
            raise ValueError(f"versions_memory must be at least 0, not {max_bytes}")
        self._shared_start = shared_start
        self._first_bits = first_bits
        self._rules = LatticeRules(exact_below=exact_below, halves=True)
        self._step_sigmas = step_sigmas
        self._limits: dict[str, Any] = {
            "max_points": max_versions,
            "max_bytes": remembered_bytes() if max_bytes is None else max_bytes,
        }
        self._asking: dict[int, int] = {}
        self._ages = [1]
        self._history: PointHistory | None = None
        self._begun: PointHistory | None = None
        self._number = self._first_number = 0
        self._first_step: dict[str, int] = {"bits": first_bits}
        self._records: dict[bytes | None, ArrayRecord] = {}

    def __str__(self) -> str:
        own = self._step_sigmas
        return f"lattice, step {'auto' if own is None else f'{own:g} sigma'}"

    @property
    def version(self) -> Version | None:
        """See `Downlink.version`."""
        history = self._history
        return None if history is None else (self._number, history.current.digest)

    def first_bytes(self, layout: Layout) -> float:
        """See `Downlink.first_bytes`."""
        history = self._history or self._begun
        return float(layout.nbytes) if history is None else history.expected_bytes

    def notes(self) -> Sequence[str]:
        """See `Downlink.notes`."""
        history = self._history or self._begun
        if history is None:
            return ()
        wanted, room = self._limits["max_points"], self._limits["max_bytes"]
        size = max(history.current.nbytes, 1)
        if size * wanted <= room:
            return ()
        return (
            f"Of {wanted} published models (max_versions) {room // size} are kept: one "
            f"takes {amount(size)}, and there are {amount(room)} for them "
            "(versions_memory). A device that holds an older one downloads the whole "
            "model instead of a change.",
        )

    @property
    def bases(self) -> Container[Version]:
        """See `Downlink.bases`."""
        return () if self._history is None else _Digests(self._history.bases)

    @property
    def newcomer(self) -> Version | None:
        """See `Downlink.newcomer`."""
        if self._history is None or self._history.first is None:
            return None
        return self._first_number, self._history.first.digest

    @property
    def recipe(self) -> Mapping[str, Any]:
        """See `Downlink.recipe`."""
        if self.newcomer is None:
            return {}
        assert self._history is not None
        rules = self._history.current.rules
        recipe = {
            **self._first_step,
            "exact_below": rules.exact_below,
            "fine_below": rules.fine_below,
        }
        return {**recipe, "halves": 1} if rules.halves else recipe

    def begin(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the first point, so that nothing of it is left to publish later."""
        self._begun = PointHistory.start(
            model,
            shared=self._shared_start,
            bits=self._first_bits,
            rules=self._rules.for_layout(Layout.of(model)),
            **self._limits,
        )
        return self._begun.current.on_demand()

    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """See `Downlink.publish`."""
        if self._history is not None:
            self._ages = _latest(self._ages, self._asking.values())
            sigmas = self._step_sigmas
            if sigmas is None:
                layout = self._history.current.layout
                sigmas = precision.step_sigmas(layout.num_params)
            history = replace(self._history, step_sigmas=sigmas)
            self._history = history.publish(
                model, absence=statistics.median_low(self._ages)
            )
        else:
            if self._begun is None or self._begun.current.digest != model_digest(model):
                self.begin(model)
            self._history, self._begun = self._begun, None
            self._first_number = number
        assert self._history is not None
        self._number = number
        self._records, self._asking = {}, {}
        return number, self._history.current.digest

    def held(self, model: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Downlink.held`."""
        if self._history is None:
            return model
        return self._history.current.on_demand()

    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """See `Downlink.frame`."""
        if self._history is None:
            raise ValueError("nothing is published yet")
        base = None
        if header.base is not None:
            _, base = header.base
            unknown = len(self._history.older) + 1
            self._asking[node_id] = self._history.ages.get(base, unknown)
        if base not in self._records:
            self._records[base] = frame_to_record(self._history.frame(base))
        return self._records[base]

    def state(self) -> StrategyState:
        """See `Downlink.state`."""
        if self._history is None:
            return StrategyState()
        numbers = [self._number, self._first_number]
        tree = {
            "lattice": numbers,
            "first_step": self._first_step,
            "ages": self._ages,
        }
        return StrategyState(tree, self._history.to_arrays())

    def restore(self, state: StrategyState) -> None:
        """See `Downlink.restore`."""
        if "lattice" not in state.tree:
            return
        try:
            number, first_number, *exponent = map(int, state.tree["lattice"])
            if exponent:  # of releases that had one first step for all tensors
                first_step = {"exponent": exponent[0]}
            else:
                ((name, value),) = state.tree["first_step"].items()
                first_step = {str(name): int(value)}
            history = PointHistory.from_arrays(state.arrays, **self._limits)
            # Later than the others, and once a single one.
            ages = state.tree.get("ages", [state.tree.get("absence", 1)])
            ages = [min(int(age), len(history.older) + 1) for age in ages][-_WINDOW:]
            if min(ages) < 1:
                raise ValueError(f"models that devices hold are {ages} old")
        except (
            AttributeError,
            CodecError,
            KeyError,
            OverflowError,
            TypeError,
            ValueError,
        ) as err:
            raise DamagedStateError(
                f"the published models are malformed: {err}"
            ) from err
        self._history = history
        self._number, self._first_number = number, first_number
        self._first_step, self._ages = first_step, ages
        self._records, self._asking = {}, {}


def _latest(ages: list[int], own: Collection[int]) -> list[int]:
    """Return the ages of the last devices: of a round that has enough, its median."""
    if len(own) < _WINDOW:
        return [*ages, *own][-_WINDOW:]
    return [statistics.median_low(own)] * _WINDOW


@frozen
class _Digests:
    """Versions by what they contain, whatever their number."""

    digests: Container[bytes]

    def __contains__(self, version: object) -> bool:
        return isinstance(version, tuple) and version[1] in self.digests
