"""Which step and dead zone reach a rate or an error."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import blocks
from ..coding.contexts import CLASSES, Classes, context_bits, counted_bits
from ..coding.counts import count_symbols
from ..contract.energy import energy
from ..contract.errors import CodecError
from ..contract.layout import Array
from ..kernel import compiled
from ..kernel.interface import Kernel
from .crossing import Crossing, integer_crossing
from .goal import Goal, Measured
from .pieces import Pieces
from .quantise import quantise_dead_zone, squared_error, too_small

DEFAULT_DEAD_ZONE = 0.66
_QUARTERS = 4
_SAMPLE, _FEWEST = 1 << 15, 64
_STEPS = 80
_DEAD_ZONES = (0.5, 0.95)
_TRIALS = 4
_OCTAVES_A_QUARTER = 0.4  # of bits or error, where a step grows by a quarter
_NEAR = 0.006
_A_QUARTER = 0.1  # of a dead zone: where both change so, thresholds hardly move
_FURTHER = 2
_SEARCHES = 3
_CLOSE = 0.02
_CODER_OVERHEAD = 1.01


@frozen
class Step:
    """A quantiser step ``multiple * 2^exponent``, multiple 4 to 7: quarter octaves.

    Its multiples are integers on the lattice ``2^exponent``, so differences of such
    values are exact, and any rate is near one of them.
    """

    multiple: int
    exponent: int

    @classmethod
    def near(cls, value: float) -> Step:
        """Return the step nearest to `value`; a power of two stays itself.

        Raises
        ------
        CodecError
            If `value` is not in ``[2^-117, 2^100]``.
        """
        if not 2.0**-117 <= value <= 2.0**100:
            raise CodecError(f"step {value} is outside 2^-117 to 2^100")
        exponent = math.floor(math.log2(value)) - 2
        multiple = round(value / 2.0**exponent)
        return cls(4, exponent + 1) if multiple == 8 else cls(multiple, exponent)

    @classmethod
    def of(cls, quarter: int) -> Step:
        """Return step number `quarter` of the ascending list of all steps."""
        return cls(4 + quarter % _QUARTERS, quarter // _QUARTERS)

    @property
    def quarter(self) -> int:
        """Position in the ascending list of all steps."""
        return self.exponent * _QUARTERS + self.multiple - 4

    @property
    def value(self) -> float:
        """The step as a number."""
        return self.multiple * 2.0**self.exponent


@frozen
class Quantiser:
    """A step and a dead zone as a fraction of it."""

    step: Step
    dead_zone: float


class StepSearch:
    """Rate and error of a quantiser by step and dead zone, on a sample.

    Parameters
    ----------
    x : Pieces
        What will be quantised; 32,768 elements of it are looked at, or, if nearly all
        of these are 0, as many of those that are not.
    classes : ndarray of uint8, shape (n,), optional
        Scale classes (`contexts.scale_classes`) at step `reference`; without them only
        errors are measured, which is enough for an error at a given dead zone.
    reference : Step
        Step of the classes.
    """

    def __init__(self, x: Pieces, classes: Classes | None, reference: Step) -> None:
        chosen = np.arange(min(len(x), _SAMPLE))
        if len(x) > _SAMPLE:
            chosen = _sampled(len(x))
        self._all = x
        self._share = 1.0
        self._x = x.take(chosen)
        if len(x) > _SAMPLE and np.count_nonzero(self._x) < _FEWEST:
            chosen = x.nonzero()
            self._share = len(chosen) / len(x)
            chosen = chosen[:: max(-(-len(chosen) // _SAMPLE), 1)]
            self._x = x.take(chosen)
        self._classes = None
        if classes is not None:
            self._classes = classes[chosen].astype(np.int16)
        self._reference = reference
        self._energy = energy(self._x)
        self._whole_energy: float | None = None
        self._measured: dict[Quantiser, Measured] = {}

    def measure(self, quantiser: Quantiser) -> Measured:
        """Return bits an element, not a number if not measured, and squared error.

        The error is that over the energy.
        """
        if quantiser not in self._measured:
            self._measured[quantiser] = self._measure(quantiser)
        return self._measured[quantiser]

    def _measure(self, quantiser: Quantiser) -> Measured:
        step, dead_zone = quantiser.step.value, quantiser.dead_zone
        if self._classes is None:
            return self._relative(math.nan, squared_error(self._x, step, dead_zone))
        shift = round(4 * math.log2(step / self._reference.value))
        if (native := compiled()) is not None:
            return self._measure_with(native, self._classes, quantiser, shift)
        shifted = np.clip(self._classes - shift, 0, CLASSES - 1).astype(np.uint8)
        q = quantise_dead_zone(self._x, step, dead_zone)
        xhat = q * np.float32(step)
        lost = energy(np.subtract(self._x, xhat, dtype=np.float64))
        return self._relative(context_bits(q, shifted), lost)

    def _measure_with(
        self, native: Kernel, classes: Array, quantiser: Quantiser, shift: int
    ) -> Measured:
        step, up = quantiser.step.value, 1 - quantiser.dead_zone
        symbols = np.empty(len(self._x), np.uint16)
        contexts = np.empty(len(self._x), np.uint8)
        lost = native.sample(self._x, classes, shift, step, up, symbols, contexts)
        if lost < 0:
            raise CodecError(too_small(step))
        counts = count_symbols(symbols, contexts, CLASSES // 2)
        return self._relative(counted_bits(counts), lost)

    def _relative(self, bits: float, lost: float) -> Measured:
        """Return bits an element, and the error over the energy."""
        bits *= _CODER_OVERHEAD * self._share
        return bits / len(self._x), lost / self._energy if self._energy else 0.0

    def for_rate(self, rate: float, dead_zone: float = 0.0) -> Quantiser:
        """Return the one of least error with at most about `rate` bits an element.

        A `dead_zone` of 0 is the best one.
        """
        return self._search(Goal(rate, is_rate=True), dead_zone)

    def for_error(self, nmse: float, dead_zone: float = 0.0) -> Quantiser:
        """Return the one of fewest bits with at most about `nmse` error.

        A `dead_zone` of 0 is the best one.

        Few elements may hold most of the energy, and the sample too many of them or
        too few: its error is compared with that of the whole, and searched for again
        where that is off.
        """
        wanted, found = nmse, None
        for _ in range(_SEARCHES):
            quantiser = self._search(Goal(wanted, is_rate=False), dead_zone)
            if len(self._x) == len(self._all) or quantiser == found:
                break
            found, whole = quantiser, self._whole_error(quantiser)
            sampled = self.measure(quantiser)[1]
            if abs(whole - nmse) <= _CLOSE * nmse or not (whole and sampled):
                break
            wanted = nmse * sampled / whole
        return quantiser

    def _whole_error(self, quantiser: Quantiser) -> float:
        lost = whole = 0.0
        known = self._whole_energy
        for part in blocks(len(self._all)):
            x = self._all.part(part)
            lost += squared_error(x, quantiser.step.value, quantiser.dead_zone)
            whole += energy(x) if known is None else 0.0
        self._whole_energy = whole = whole if known is None else known
        return lost / whole if whole else 0.0

    def _search(self, goal: Goal, dead_zone: float) -> Quantiser:
        """Return what meets a goal; a dead zone that is free is tuned."""
        first = dead_zone or DEFAULT_DEAD_ZONE
        centre = self._reference.quarter

        def excess(quarters: int) -> float:
            quantiser = Quantiser(Step.of(centre + quarters), first)
            return goal.excess(self.measure(quantiser))

        border = integer_crossing(
            excess, goal.quarters, -_STEPS, _STEPS, slope=_OCTAVES_A_QUARTER
        )
        found = Quantiser(Step.of(centre + border - (not goal.is_rate)), first)
        if dead_zone or not 2 - _STEPS <= border <= _STEPS - 2:
            return found
        tuned = self._tuned(goal, centre + border, excess(border - 1), excess(border))
        return min((found, *tuned), key=lambda each: self._cost(goal, each))

    def _tuned(
        self, goal: Goal, border: int, finer: float, coarser: float
    ) -> list[Quantiser]:
        """Tune the dead zone at the steps before and at a border, and at more steps.

        The cost has one least value along the steps, so these are left on the side on
        which it falls. The next dead zone is expected on the line through the last two.

        Parameters
        ----------
        goal : Goal
            What for.
        border : int
            Number of a step.
        finer, coarser : float
            `Goal.excess` of the step before it and of it, at the default dead zone.
        """
        slope = (finer - coarser) / _A_QUARTER
        first = [
            self._tune(
                goal, Step.of(quarter), DEFAULT_DEAD_ZONE + excess / slope, slope
            )
            for quarter, excess in ((border - 1, finer), (border, coarser))
        ]
        found = sorted(first, key=lambda each: self._cost(goal, each), reverse=True)
        for _ in range(_FURTHER):
            before, last = found[-2:]
            quarter = 2 * last.step.quarter - before.step.quarter
            zone = 2 * last.dead_zone - before.dead_zone
            found.append(self._tune(goal, Step.of(quarter), zone, slope))
            if not self._cost(goal, found[-1]) < self._cost(goal, last):
                break
        return found

    def _tune(
        self, goal: Goal, step: Step, dead_zone: float, slope: float
    ) -> Quantiser:
        """Return the cheapest quantiser of a step that was tried.

        Parameters
        ----------
        goal : Goal
            To be met, but by no more than it takes.
        step : Step
            Of the quantiser.
        dead_zone : float
            Where to begin.
        slope : float
            See `Crossing`.
        """
        low, high = _DEAD_ZONES
        aim = _NEAR / 2 if goal.is_rate else -_NEAR / 2
        known = Quantiser(step, DEFAULT_DEAD_ZONE)
        crossing = Crossing(low, high, slope)
        if known in self._measured:
            crossing.add(known.dead_zone, goal.excess(self.measure(known)) + aim)
        tried: list[Quantiser] = []
        at = min(max(dead_zone, low), high)
        for _ in range(_TRIALS):
            quantiser = Quantiser(step, at)
            tried.append(quantiser)
            excess = goal.excess(self.measure(quantiser))
            if goal.is_met(excess) and abs(excess) < _NEAR:
                break
            crossing.add(at, excess + aim)
            at = crossing.guess()
            if Quantiser(step, at) in self._measured:
                break
        return min(tried, key=lambda each: self._cost(goal, each))

    def _cost(self, goal: Goal, quantiser: Quantiser) -> float:
        measured = self.measure(quantiser)
        return goal.cost(measured) if goal.is_met(goal.excess(measured)) else math.inf


@lru_cache(maxsize=2)
def _sampled(n: int) -> Array:
    """Return positions of `n` elements to look at, the same always; read-only."""
    drawn = np.random.default_rng(0).integers(0, n, _SAMPLE)
    chosen = np.sort(drawn.astype(np.uint32) if n <= 1 << 32 else drawn)
    chosen = chosen.astype(np.int64)
    chosen.flags.writeable = False
    return chosen
