"""What may go wrong with a run that started."""

from __future__ import annotations


class RunFailedError(RuntimeError):
    """A run that started and did not finish; the message says why and where to look."""
