"""The device's half of checking that uploads keep their error bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr_caesar.codec import Codec, CodecError
from flwr_caesar.codec.contract.bounds import error_over_bound
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.frozen import frozen
from flwr_caesar.methods.bounds import BoundReport

from .method import DeviceMethod


@frozen
class BoundCheck(DeviceMethod):
    """Decode each upload and report how near to its bound it came.

    The server has no originals. It compares the digest with what it decoded itself: if
    both decoded the same values, the error measured here is the error there.
    """

    def measure(self, codec: Codec, total: Arrays, sent: Arrays) -> Mapping[str, Any]:
        """Return the largest ``|error| / bound`` and the digest of what was decoded."""
        worst = error_over_bound(codec, total, sent)
        if worst is None:
            raise CodecError(f"codec {codec.id} states no bound that could be checked")
        return BoundReport(
            error_over_bound=worst,
            decoded=model_digest(sent).hex(),
        ).to_dict()
