"""The records of a run's phases, with a short name for themselves."""

from __future__ import annotations

from flwr_caesar.records import RoundRecord

from .amounts import amount, times_fewer


class History(list[RoundRecord]):
    """Every phase of a run so far, in order; prints as one line."""

    def __repr__(self) -> str:
        if not self:
            return "<History: no rounds yet>"
        rounds = len({record.server_round for record in self})
        up = sum(record.bytes_up for record in self)
        down = sum(record.bytes_down for record in self)
        fewer = times_fewer(
            sum(record.raw_bytes_up + record.raw_bytes_down for record in self),
            up + down,
        )
        saved = "" if fewer is None else f", {fewer:.1f} × fewer than uncompressed"
        return (
            f"<History: {rounds} rounds, {len(self)} phases, {amount(up)} up, "
            f"{amount(down)} down{saved}; print(strategy.report()) has a table>"
        )
