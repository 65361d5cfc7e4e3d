"""What each device's compute and link are worth, learnt from what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, grown, slot_numbers
from .errors import PlanError

Rows = np.ndarray[Any, np.dtype[np.float32]]

WINDOW = 5
COLUMNS = 4 * WINDOW
MIN_BYTES = 1024

_TRUSTED = 3
_NO_OVERHEAD = 1e-9
_MAX_LOG2 = 60.0


class Estimate:
    """One positive quantity of each device, as the median of its last observations.

    A device is a slot: a small integer that the caller gives it once, counted from 0.
    Kept are its last five observations. Logarithms are taken, so that twice and half
    as much are equally far. With fewer than three observations the prior counts as one
    more. Hence, if noise is small:

    - one observation moves a new device half way (in logarithms) from the prior, two
      agreeing ones all the way;
    - from the third observation on, one wild one does not move the estimate beyond the
      range of the others; from the fifth on, two do not;
    - a lasting change is learnt after three rounds.

    Parameters
    ----------
    prior : float
        What is expected of a device while nothing was observed of any, above 0. After
        that the median over all devices of their latest observations is.

    Raises
    ------
    PlanError
        If `prior` is not finite and above 0.
    """

    def __init__(self, *, prior: float) -> None:
        if not 0 < prior < float("inf"):
            raise PlanError(f"prior is {prior}; give a finite number above 0")
        self._constant = float(np.log2(prior))
        self._logs: Rows = np.full((0, WINDOW), np.nan, np.float32)
        self._prior: float | None = None

    @property
    def prior(self) -> float:
        """What is expected of a device of which nothing was observed."""
        return float(2.0 ** self._log_prior())

    def observe(self, slots: ArrayLike, values: ArrayLike) -> None:
        """Add one observation of some devices.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        values : array of float, shape (n,)
            What was observed. What no device can mean (NaN, infinite, 0 or less, beyond
            2^-60 to 2^60) is passed over.

        Raises
        ------
        PlanError
            If the slots are not distinct, or not as many as the values.
        """
        rows = slot_numbers(slots, distinct=True)
        seen = np.asarray(values, np.float64)
        if seen.shape != rows.shape:
            raise PlanError("slots and values differ in length")
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log2(seen)
        usable = np.abs(logs) <= _MAX_LOG2
        rows, logs = rows[usable], logs[usable]
        if not len(rows):
            return
        self._reserve(int(rows.max()) + 1)
        self._logs[rows, 1:] = self._logs[rows, :-1]
        self._logs[rows, 0] = logs
        self._prior = None

    def predict(self, slots: ArrayLike) -> Floats:
        """Return the estimate for devices, shape (n,), all above 0."""
        known = self.rows(slots).astype(np.float64)
        observed = (~np.isnan(known)).sum(axis=1)
        few = observed < _TRUSTED
        prior = np.where(few, self._log_prior(), np.nan)
        ascending = np.sort(np.column_stack([known, prior]), axis=1)
        votes = observed + few
        lower = np.take_along_axis(ascending, (votes - 1)[:, None] // 2, axis=1)
        upper = np.take_along_axis(ascending, votes[:, None] // 2, axis=1)
        return np.asarray(2.0 ** ((lower + upper) / 2)[:, 0], np.float64)

    def forget(self, slots: ArrayLike) -> None:
        """Forget all observations of some devices, of which the prior is expected then.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices; ones that are not known are passed over.
        """
        numbers = slot_numbers(slots)
        self._logs[numbers[numbers < len(self._logs)]] = np.nan
        self._prior = None

    def rows(self, slots: ArrayLike) -> Rows:
        """Return what is kept of devices, to be stored.

        Returns
        -------
        ndarray of float32, shape (n, 5)
            Base-2 logarithms of the last observations, newest first; NaN: none.
        """
        numbers = slot_numbers(slots)
        found = np.full((len(numbers), WINDOW), np.nan, np.float32)
        inside = numbers < len(self._logs)
        found[inside] = self._logs[numbers[inside]]
        return found

    def restore(self, slots: ArrayLike, rows: ArrayLike) -> None:
        """Take back what `rows` returned.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        rows : array of float32, shape (n, 5)
            What was stored of each. Values that were never an observation become none.

        Raises
        ------
        PlanError
            If the shape is another, or the slots are not distinct.
        """
        numbers = slot_numbers(slots, distinct=True)
        logs = np.asarray(rows)
        if logs.shape != (len(numbers), WINDOW):
            raise PlanError(f"rows must have shape ({len(numbers)}, {WINDOW})")
        if not len(numbers):
            return
        self._reserve(int(numbers.max()) + 1)
        self._logs[numbers] = np.where(np.abs(logs) <= _MAX_LOG2, logs, np.nan)
        self._prior = None

    def _log_prior(self) -> float:
        if self._prior is None:
            newest = self._logs[:, 0]
            newest = newest[~np.isnan(newest)]
            self._prior = float(np.median(newest)) if len(newest) else self._constant
        return self._prior

    def _reserve(self, needed: int) -> None:
        old = len(self._logs)
        capacity = grown(old, needed)
        if capacity > old:
            logs = np.full((capacity, WINDOW), np.nan, np.float32)
            logs[:old] = self._logs
            self._logs = logs


class Estimates:
    """Seconds per sample, bandwidths and idle seconds of each device.

    Parameters
    ----------
    seconds_per_sample : float
        Prior for training on one sample once; a millisecond if not given.
    bytes_per_second : float
        Prior for either direction of a link; 10 Mbit/s if not given.

    Attributes
    ----------
    seconds_per_sample, down_bytes_per_second, up_bytes_per_second : Estimate
        Compute and link.
    overhead_seconds : Estimate
        What passes in a round besides training, coding and transfers: starting a
        process, waiting for the next poll. Nothing until it was observed.
    """

    def __init__(
        self, *, seconds_per_sample: float = 1e-3, bytes_per_second: float = 1.25e6
    ) -> None:
        self.seconds_per_sample = Estimate(prior=seconds_per_sample)
        self.down_bytes_per_second = Estimate(prior=bytes_per_second)
        self.up_bytes_per_second = Estimate(prior=bytes_per_second)
        self.overhead_seconds = Estimate(prior=_NO_OVERHEAD)

    def observe_training(
        self, slots: ArrayLike, *, seconds: ArrayLike, samples: ArrayLike
    ) -> None:
        """Learn from training times that devices report.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        seconds : array of float, shape (n,)
            Seconds of local training.
        samples : array of float, shape (n,)
            Samples trained on, each as often as it was: steps times batch size.
        """
        self.seconds_per_sample.observe(slots, _quotient(seconds, samples))

    def observe_transfer(
        self,
        slots: ArrayLike,
        *,
        bytes_down: ArrayLike,
        bytes_up: ArrayLike,
        seconds: ArrayLike,
        started: ArrayLike = 0.0,
        polling: float = 0.0,
    ) -> None:
        """Learn one rate for both directions, where only the total time is known.

        What remains of `seconds` after `started` and `polling` are transfers, give or
        take `polling`. If more than that remains, it tells the rate. If less, it only
        tells that the rate is not below what `polling` would take. Whatever the rate
        does not explain is overhead, so that a round with as many bytes is foretold
        rightly even where the two cannot be told apart.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        bytes_down, bytes_up : array of float, shape (n,)
            Bytes sent. Fewer than 1,024 together tell of latency, not of bandwidth, and
            are passed over.
        seconds : array of float, shape (n,)
            The round trip by the server's clock, less the seconds the device says it
            spent on training, encoding and decoding. 0 or less is passed over.
        started : array of float, shape (n,), or scalar
            Seconds of these that the device's process took to start.
        polling : float
            Seconds of these that messages lie about for in the mean, at least 0.
        """
        down, up = np.asarray(bytes_down, np.float64), np.asarray(bytes_up, np.float64)
        elapsed, start = np.asarray(seconds, np.float64), np.asarray(started)
        transfer = elapsed - start - polling
        least = _rate(down + up, polling)
        slower = least > self.up_bytes_per_second.predict(slots)
        unclear = np.where(slower & (elapsed > 0), least, np.nan)
        rate = np.where(transfer >= polling, _rate(down + up, transfer), unclear)
        self.down_bytes_per_second.observe(slots, rate)
        self.up_bytes_per_second.observe(slots, rate)
        explained = down / self.down_bytes_per_second.predict(slots)
        explained += up / self.up_bytes_per_second.predict(slots)
        overhead = np.maximum(elapsed - explained, start)
        self.overhead_seconds.observe(slots, np.where(elapsed > 0, overhead, np.nan))

    def observe_link(
        self,
        slots: ArrayLike,
        *,
        bytes_down: ArrayLike,
        seconds_down: ArrayLike,
        bytes_up: ArrayLike,
        seconds_up: ArrayLike,
    ) -> None:
        """Learn both directions, where their times are known apart.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices, each once.
        bytes_down, bytes_up : array of float, shape (n,)
            Bytes sent; fewer than 1,024 are passed over.
        seconds_down, seconds_up : array of float, shape (n,)
            Seconds each took; 0 or less is passed over.
        """
        self.down_bytes_per_second.observe(slots, _rate(bytes_down, seconds_down))
        self.up_bytes_per_second.observe(slots, _rate(bytes_up, seconds_up))

    def forget_compute(self, slots: ArrayLike) -> None:
        """Forget how fast some devices compute, and keep what is known of their links.

        For devices whose power mode changed: neither training nor starting a process
        takes as long as it did; see `flwr_caesar.plan.PowerModes`.

        Parameters
        ----------
        slots : array of int, shape (n,)
            Devices; ones that are not known are passed over.
        """
        self.seconds_per_sample.forget(slots)
        self.overhead_seconds.forget(slots)

    def rows(self, slots: ArrayLike) -> Rows:
        """Return what is kept of devices, shape (n, 20), float32, to be stored."""
        return np.concatenate([part.rows(slots) for part in self._parts()], axis=1)

    def restore(self, slots: ArrayLike, rows: ArrayLike) -> None:
        """Take back what `rows` returned.

        Raises
        ------
        PlanError
            If the shape is another, or the slots are not distinct.
        """
        logs = np.asarray(rows)
        if logs.ndim != 2 or logs.shape[1] != COLUMNS:
            raise PlanError(f"rows must have {COLUMNS} columns")
        parts = self._parts()
        for part, columns in zip(parts, np.hsplit(logs, len(parts)), strict=True):
            part.restore(slots, columns)

    def _parts(self) -> tuple[Estimate, Estimate, Estimate, Estimate]:
        return (
            self.seconds_per_sample,
            self.down_bytes_per_second,
            self.up_bytes_per_second,
            self.overhead_seconds,
        )


def _rate(sent: ArrayLike, seconds: ArrayLike) -> Floats:
    count = np.asarray(sent, np.float64)
    return _quotient(np.where(count >= MIN_BYTES, count, np.nan), seconds)


def _quotient(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Divide; NaN where either is not above 0."""
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    usable = (top > 0) & (bottom > 0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.where(usable, top, np.nan) / np.where(usable, bottom, 1.0)
