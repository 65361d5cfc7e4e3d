"""Amounts as people read them."""

from __future__ import annotations

from collections.abc import Sequence

KB, MB, GB = 1e3, 1e6, 1e9
_LEAST = 0.005  # what two decimals show as 0.00


def amount(nbytes: float) -> str:
    """Return a number of bytes with the unit that shows three digits of it.

    Parameters
    ----------
    nbytes : float
        Decimal units: 1 kB is 1,000 bytes.
    """
    if nbytes < KB:
        return f"{nbytes:.0f} B"
    for unit, name in ((KB, "kB"), (MB, "MB")):
        if nbytes < 999.5 * unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes / GB:,.2f} GB"


def column_unit(values: Sequence[float | None]) -> tuple[float, str]:
    """Return the unit of a column of bytes: MB, or kB where MB would read 0.00."""
    present = [value for value in values if value]
    return (KB, "kB") if present and min(present) < _LEAST * MB else (MB, "MB")


def times_fewer(raw: float, sent: float) -> float | None:
    """Return how many times fewer bytes were sent than there were; None if unknown."""
    return raw / sent if raw and sent else None
