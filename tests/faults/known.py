"""What our cases are known to do: the harness is not taken at its word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What is known of a case.

    Parameters
    ----------
    uniform : bool
        Whether all replies weigh the same.
    remembers : bool
        Whether uploads are predicted from a memory on both sides of what was sent.
    shares : bool
        Whether uploads are predicted from what all devices are sent.
    has_control : bool
        Whether devices keep control variates, which need a mean of the replies.
    finishes : bool
        Whether it goes on with another model than the inner strategy's.
    """

    uniform: bool = False
    remembers: bool = False
    shares: bool = False
    has_control: bool = False
    finishes: bool = False


KNOWN = {
    "topk": Known(),
    "topk_lattice": Known(),
    "sign_ef": Known(),
    "cafe": Known(shares=True),
    "cafe_quantized": Known(shares=True),
    "cafe_lattice": Known(shares=True),
    "qsgd": Known(),
    "qsgd_rounded": Known(),
    "fedcomloc": Known(uniform=True, has_control=True),
    "fedcomloc_global": Known(uniform=True, has_control=True, finishes=True),
    "fedcomloc_local": Known(uniform=True, has_control=True),
    "caesar": Known(),
    "caesar_paper": Known(uniform=True),
    "pruning": Known(finishes=True),
    "error_bounded": Known(remembers=True),
    "error_bounded_feedback": Known(remembers=True),
    "correlation_aware": Known(remembers=True),
}
