"""What the halves of Caesar as published say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True)
class RecoverySettings(Settings):
    """What becomes of an upload that did not count.

    Parameters
    ----------
    resend_lost : bool
        Whether the device adds it to its next one. False: it is gone, as published.
    """

    resend_lost: bool = True
