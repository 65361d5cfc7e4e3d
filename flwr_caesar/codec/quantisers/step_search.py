"""Which step and dead zone reach a rate or an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..coding.blocks import blocks
from ..coding.contexts import Classes, context_bits
from ..contract.errors import CodecError
from .pieces import Pieces
from .quantise import energy, quantise_dead_zone

DEFAULT_DEAD_ZONE = 0.66
_QUARTERS = 4
_SAMPLE = 1 << 15
_STEPS = 80
_DEAD_ZONES = (0.5, 0.95)
_HALVINGS = 7
_CODER_OVERHEAD = 1.01


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Quantiser:
    """A step and a dead zone as a fraction of it."""

    step: Step
    dead_zone: float


class StepSearch:
    """Rate and error of a quantiser by step and dead zone, on a sample.

    Parameters
    ----------
    x : Pieces
        What will be quantised; 32,768 elements of it are looked at.
    classes : ndarray of uint8, shape (n,)
        Scale classes (`contexts.scale_classes`) at step `reference`.
    reference : Step
        Step of the classes.
    """

    def __init__(self, x: Pieces, classes: Classes, reference: Step) -> None:
        chosen = np.arange(min(len(x), _SAMPLE))
        if len(x) > _SAMPLE:
            rng = np.random.default_rng(0)
            chosen = np.sort(rng.integers(0, len(x), _SAMPLE))
        self._all = x
        self._x = x.take(chosen)
        self._classes = classes[chosen].astype(np.int16)
        self._reference = reference
        self._energy = energy(self._x)
        self._measured: dict[Quantiser, tuple[float, float]] = {}

    def measure(self, quantiser: Quantiser) -> tuple[float, float]:
        """Return bits an element and normalised squared error."""
        if quantiser not in self._measured:
            self._measured[quantiser] = self._measure(quantiser)
        return self._measured[quantiser]

    def _measure(self, quantiser: Quantiser) -> tuple[float, float]:
        octaves = math.log2(quantiser.step.value / self._reference.value)
        shifted = np.clip(self._classes - round(4 * octaves), 0, 95).astype(np.uint8)
        q = quantise_dead_zone(self._x, quantiser.step.value, quantiser.dead_zone)
        bits = _CODER_OVERHEAD * context_bits(q, shifted) / len(q)
        xhat = q * np.float32(quantiser.step.value)
        lost = energy(np.subtract(self._x, xhat, dtype=np.float64))
        return bits, lost / self._energy if self._energy else 0.0

    def for_rate(self, rate: float, dead_zone: float = 0.0) -> Quantiser:
        """Return the one of least error with at most about `rate` bits an element.

        A `dead_zone` of 0 is the best one.
        """
        return self._search(
            lambda m: m[0] <= rate, lambda m: m[1], dead_zone, coarser=True
        )

    def for_error(self, nmse: float, dead_zone: float = 0.0) -> Quantiser:
        """Return the one of fewest bits with at most about `nmse` error.

        A `dead_zone` of 0 is the best one.

        Few elements may hold most of the energy, and the sample too many of them or
        too few: its error is compared once with that of the whole.
        """
        quantiser = self._search_error(nmse, dead_zone)
        if len(self._x) == len(self._all):
            return quantiser
        whole = self._whole_error(quantiser)
        if not whole:
            return quantiser
        nmse = nmse * self.measure(quantiser)[1] / whole
        return self._search_error(nmse, dead_zone)

    def _search_error(self, nmse: float, dead_zone: float) -> Quantiser:
        return self._search(
            lambda m: m[1] > nmse, lambda m: m[0], dead_zone, coarser=False
        )

    def _whole_error(self, quantiser: Quantiser) -> float:
        lost = whole = 0.0
        for part in blocks(len(self._all)):
            x = self._all.part(part)
            q = quantise_dead_zone(x, quantiser.step.value, quantiser.dead_zone)
            lost += energy(x - q * np.float32(quantiser.step.value))
            whole += energy(x)
        return lost / whole if whole else 0.0

    def _search(
        self,
        is_coarse: Callable[[tuple[float, float]], bool],
        cost: Callable[[tuple[float, float]], float],
        dead_zone: float,
        *,
        coarser: bool,
    ) -> Quantiser:
        """Tune a dead zone that is free at steps around the border of `is_coarse`."""
        low, high = -_STEPS, _STEPS
        centre = self._reference.quarter
        first = dead_zone or DEFAULT_DEAD_ZONE
        while high - low > 1:
            middle = (low + high) // 2
            quantiser = Quantiser(Step.of(centre + middle), first)
            if is_coarse(self.measure(quantiser)):
                high = middle
            else:
                low = middle
        border = centre + (high if coarser else low)
        best = Quantiser(Step.of(border), first)
        if dead_zone:
            return best
        least = cost(self.measure(best))
        for quarter in range(border - 2, border + 3):
            quantiser = self._tune(Step.of(quarter), is_coarse, coarser)
            measured = self.measure(quantiser)
            if is_coarse(measured) == coarser and cost(measured) < least:
                best, least = quantiser, cost(measured)
        return best

    def _tune(
        self,
        step: Step,
        is_coarse: Callable[[tuple[float, float]], bool],
        coarser: bool,
    ) -> Quantiser:
        low, high = _DEAD_ZONES
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if is_coarse(self.measure(Quantiser(step, middle))):
                high = middle
            else:
                low = middle
        return Quantiser(step, high if coarser else low)
