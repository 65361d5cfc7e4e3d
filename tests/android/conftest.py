"""Tests of the Android client's core; skipped where it cannot be compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .jvm import QUICK_START, Jvm
from .toolchain import MissingToolError, require_tools


@pytest.fixture(scope="session")
def jvm() -> Iterator[Jvm]:
    try:
        require_tools()
    except MissingToolError as err:
        pytest.skip(str(err))
    with Jvm(QUICK_START) as running:
        yield running
