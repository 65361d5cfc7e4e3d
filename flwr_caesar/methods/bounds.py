"""What a device says of the error of its upload."""

from __future__ import annotations

from flwr_caesar.frozen import frozen

from .settings import Settings


@frozen
class BoundReport(Settings):
    """How far an upload is from its bound, as the device decoded it.

    Parameters
    ----------
    error_over_bound : float
        The largest ``|error| / bound``.
    decoded : str
        `model_digest` of what was decoded, in hex.
    """

    error_over_bound: float
    decoded: str
