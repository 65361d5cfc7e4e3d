"""Where the error-feedback residual waits between two messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Context

from flwr_caesar.transport import arrays_to_record, record_to_arrays

_PREFIX = "flwr-caesar.residual."


def load_residual(context: Context, record: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the residual of one ArrayRecord, empty if none was stored."""
    stored = context.state.array_records.get(_PREFIX + record)
    return record_to_arrays(stored) if stored else {}


def store_residual(
    context: Context, record: str, residual: dict[str, np.ndarray[Any, Any]]
) -> None:
    """Keep the residual of one ArrayRecord in Flower's Context."""
    context.state[_PREFIX + record] = arrays_to_record(residual)
