"""Skips with a clear line where ExecuTorch is not installed."""

from __future__ import annotations

import pytest

from flwr_caesar.android.errors import ExportError
from flwr_caesar.android.lowering import require_executorch


@pytest.fixture(scope="session")
def executorch() -> None:
    try:
        require_executorch()
    except ExportError as error:
        pytest.skip(f"no program is made: {error}")
