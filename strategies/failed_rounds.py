"""Rounds in which devices replied and no reply could be used."""

from __future__ import annotations

from collections import Counter

from .errors import TrainingFailedError
from .phase import Phase


class FailedRounds:
    """Ends a run whose devices reply again and again in vain.

    Late or missing replies do not count.

    Parameters
    ----------
    most : int
        How many such rounds in a row end the run; the first round of a run does at
        once. 0: none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = 0

    def note(self, phase: Phase) -> None:
        """Take in a training phase that was closed.

        Raises
        ------
        TrainingFailedError
            With the most frequent reason.
        """
        if phase.replies:
            self._in_a_row = 0
        if phase.replies or not phase.faults or not self._most:
            return
        self._in_a_row += 1
        count = self._in_a_row
        if phase.server_round > 1 and count < self._most:
            return
        ((reason, _),) = Counter(phase.faults.values()).most_common(1)
        rounds = "1 round" if count == 1 else f"{count} rounds"
        raise TrainingFailedError(
            f"none of {len(phase.faults)} replies could be used in {rounds}. Most "
            f"frequent reason: {reason}"
        )
