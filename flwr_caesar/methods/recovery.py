"""What the halves of Caesar as published say to each other."""

from __future__ import annotations

from flwr_caesar.frozen import frozen

from .settings import Settings


@frozen
class RecoverySettings(Settings):
    """What becomes of an upload that did not count.

    Parameters
    ----------
    resend_lost : bool
        Whether the device adds it to its next one. False: it is gone, as published.
    """

    resend_lost: bool = True
