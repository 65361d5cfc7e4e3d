"""Where the date, tokens and ids come from: this machine, or whoever repeats a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import KW_ONLY

from flwr_caesar.frozen import frozen

TOKEN_BYTES = 16
_ID_BYTES = 8


@frozen
class Sources:
    """The clock and the random numbers by which sessions name what they make.

    Parameters
    ----------
    now : callable
        Returns the date in nanoseconds since 1970. By default the machine's.
    token_bytes : callable
        Returns so many random bytes, which nobody else can guess. By default the
        system's.
    """

    _: KW_ONLY
    now: Callable[[], int] = time.time_ns
    token_bytes: Callable[[int], bytes] = os.urandom

    def new_token(self) -> bytes:
        """Return a token for a device, 16 random bytes."""
        return self.token_bytes(TOKEN_BYTES)

    def new_id(self) -> int:
        """Return a random nonzero number below ``2**64``."""
        return int.from_bytes(self.token_bytes(_ID_BYTES), "little") or 1
