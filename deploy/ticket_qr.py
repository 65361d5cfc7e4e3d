"""Tickets as QR codes: for phones, whose cameras open an app with what they read."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

from .fleet import FleetError
from .ticket import Ticket

_BORDER = 4  # light modules around it, as the standard asks for


class QrError(FleetError):
    """A QR code cannot be made; the message says what to do."""


def require_qr() -> None:
    """Raise `QrError` unless the library that makes the codes is installed."""
    if importlib.util.find_spec("segno") is None:
        raise QrError(
            "a QR code needs segno, which is not installed: "
            "pip install 'flwr-caesar[qr]', or do without --qr"
        )


def to_terminal(ticket: Ticket) -> tuple[str, int]:
    """Return the code as text with colours, and how many columns it takes."""
    code = _code(ticket)
    out = io.StringIO()
    code.terminal(out=out, border=_BORDER, compact=True)
    return out.getvalue(), code.symbol_size(border=_BORDER)[0]


def to_svg(ticket: Ticket) -> str:
    """Return the code as an SVG picture, to be printed."""
    return str(_code(ticket).svg_inline(border=_BORDER, scale=3, light="white"))


def _code(ticket: Ticket) -> Any:
    import segno

    # The coarsest that holds it, as a screen has no stains.
    return segno.make_qr(ticket.to_uri(), error="L", boost_error=False)
