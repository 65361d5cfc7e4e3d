"""What ends a run."""

from __future__ import annotations


class TrainingFailedError(RuntimeError):
    """Devices replied, and none of their replies could be used."""
