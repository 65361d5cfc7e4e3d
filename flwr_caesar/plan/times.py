"""What a round cost in seconds, virtual or measured, and who waited for whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flwr_caesar.frozen import frozen

from .columns import Floats, Mask, floats
from .errors import PlanError


@frozen
class RoundTimes:
    """Seconds of each device of one round.

    Use `RoundTimes.of` to build one from unchecked values.

    Parameters
    ----------
    download, train, upload : ndarray of float64, shape (n,)
        Seconds each device spent on each. Where only the whole transfer is known,
        `download` is all of it and `upload` 0.
    deadline : float, optional
        Seconds at which the round closes; `None`: with the slowest device.
    """

    download: Floats
    train: Floats
    upload: Floats
    deadline: float | None = None

    @classmethod
    def of(
        cls,
        *,
        download: ArrayLike,
        train: ArrayLike,
        upload: ArrayLike = 0.0,
        deadline: float | None = None,
    ) -> RoundTimes:
        """Check and broadcast the columns.

        Raises
        ------
        PlanError
            If a time is negative or not finite, the deadline is not above 0, or the
            columns differ in length.
        """
        if deadline is not None and not 0 < deadline < float("inf"):
            raise PlanError(f"deadline is {deadline}; give seconds above 0, or None")
        try:
            down, work, up = np.broadcast_arrays(
                np.atleast_1d(floats("download", download)),
                floats("train", train),
                floats("upload", upload),
            )
        except ValueError as error:
            raise PlanError("the columns of devices differ in length") from error
        return cls(down, work, up, deadline)

    @property
    def finish(self) -> Floats:
        """Seconds from the start of the round to each device's last byte."""
        return self.download + self.train + self.upload

    @property
    def seconds(self) -> float:
        """Seconds of the round: the slowest device's, or the deadline if it is less."""
        slowest = float(self.finish.max(initial=0.0))
        return slowest if self.deadline is None else min(slowest, self.deadline)

    @property
    def late(self) -> Mask:
        """Which devices missed the deadline."""
        return np.asarray(self.finish > self.seconds, np.bool_)

    @property
    def waiting(self) -> Floats:
        """Seconds each device waits for the round to end; 0 for a late one."""
        return np.maximum(self.seconds - self.finish, 0.0)


@frozen
class Totals:
    """Sums over rounds.

    Parameters
    ----------
    rounds : int
        How many.
    seconds : float
        Of all rounds, one after another.
    device_rounds, late : int
        Devices summed over rounds, and how many of them missed a deadline.
    download, train, upload, waiting : float
        Seconds summed over devices and rounds.
    """

    rounds: int = 0
    seconds: float = 0.0
    device_rounds: int = 0
    late: int = 0
    download: float = 0.0
    train: float = 0.0
    upload: float = 0.0
    waiting: float = 0.0

    def add(self, times: RoundTimes) -> Totals:
        """Return the totals with one more round."""
        return Totals(
            rounds=self.rounds + 1,
            seconds=self.seconds + times.seconds,
            device_rounds=self.device_rounds + len(times.finish),
            late=self.late + int(times.late.sum()),
            download=self.download + float(times.download.sum()),
            train=self.train + float(times.train.sum()),
            upload=self.upload + float(times.upload.sum()),
            waiting=self.waiting + float(times.waiting.sum()),
        )

    @property
    def mean_waiting(self) -> float:
        """Seconds that a device waits in a round, on average."""
        return self.waiting / self.device_rounds if self.device_rounds else 0.0
