"""Hypothesis without deadlines, as no test here is about time; numpy's own loops."""

from __future__ import annotations

import pytest
from hypothesis import settings

from flwr_caesar.codec import kernel

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def numpy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have numpy run the loops, also where the kernel was built."""
    monkeypatch.setattr(kernel, "native", None)
