"""The device's half of checking that uploads keep their error bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr_caesar.codec import Codec
from flwr_caesar.codec.bounds import error_over_bound
from flwr_caesar.codec.digest import model_digest
from flwr_caesar.codec.layout import Arrays

from .part import DevicePart

ERROR_OVER_BOUND = "error-over-bound"
DECODED = "decoded"


@dataclass(frozen=True)
class BoundCheck(DevicePart):
    """Decode each upload and report how near to its bound it came.

    The server has no originals. It compares the digest with what it decoded itself: if
    both decoded the same values, the error measured here is the error there.
    """

    def measure(self, codec: Codec, total: Arrays, sent: Arrays) -> Mapping[str, Any]:
        """Return the largest ``|error| / bound`` and the digest of what was decoded."""
        return {
            ERROR_OVER_BOUND: error_over_bound(codec, total, sent),
            DECODED: model_digest(sent).hex(),
        }
