"""Whoever has the keys to the devices: his acts, and what the law excuses for them."""

from __future__ import annotations

from collections.abc import Sequence

from flwr_caesar.sync.protocol import DownloadHeader, device_id
from flwr_caesar.sync.state import DeviceState

from .chance import Chance
from .law import Ghost, Holder, Law, count_tokens

_CHANCE_OF_BACKUP = 0.05


class Operator:
    """Deletes, copies and restores device states, and moves devices to new nodes.

    Parameters
    ----------
    chance : Chance
        Decides which backup, and which other device.
    holders : sequence of Holder
        The devices.
    law : Law
        By which the devices are judged.

    Attributes
    ----------
    phase : int
        The newest phase.
    epoch : int
        How often the server was made to go back; requests of an earlier epoch are not
        held to the law.
    """

    def __init__(self, chance: Chance, holders: Sequence[Holder], law: Law) -> None:
        self._chance = chance
        self._holders = holders
        self._law = law
        self.phase = self.epoch = 0

    def act(self, kind: str, holder: Holder) -> bool:
        """Do what a name in `DEVICE_EVENTS` says; return whether it could be done."""
        if kind == "device-new-node":
            holder.node_id = self._chance.new_id()
            return True
        if holder.state is None:
            return False
        self._excuse(holder.state.token)
        if kind == "device-deleted":
            holder.state = holder.ghost = None
            holder.excused_at = -1
        elif kind == "device-restored":
            if not holder.backups:
                return False
            holder.state, holder.ghost = self._chance.random.choice(holder.backups)
            holder.excused_at = self.phase
            self._excuse(holder.state.token)
        else:
            other = self._chance.random.choice(self._holders)
            if other is holder:
                return False
            if other.state is not None:
                self._excuse(other.state.token)
            other.state, other.ghost = holder.state, holder.ghost
            other.excused_at = holder.excused_at = self.phase
        return True

    def excuse_all(self) -> None:
        """Excuse every device, as the server's clock or memory is not to be trusted."""
        for holder in self._holders:
            if holder.state is not None:
                holder.excused_at = self.phase

    def saved(self, holder: Holder, state: DeviceState, ghost: Ghost) -> None:
        """Take note of a state that a device wrote, and perhaps back it up."""
        if holder.state is not None and state.token != holder.state.token:
            holder.excused_at = -1
        holder.state, holder.ghost = state, ghost
        if self._chance.random.random() < _CHANCE_OF_BACKUP:
            holder.backups = [*holder.backups[-2:], (state, ghost)]

    def calm(
        self, holder: Holder, header: DownloadHeader, *, epoch: int, phase: int
    ) -> None:
        """Hold a device to the law again, once an operator's act is behind it.

        Parameters
        ----------
        holder : Holder
            That has just answered a request.
        header : DownloadHeader
            The request.
        epoch, phase : int
            When the request was made.
        """
        if holder.state is None or holder.excused_at < 0:
            return
        if (
            epoch == self.epoch
            and phase > holder.excused_at
            and header.device == device_id(holder.state.token)
            and not self._law.doubtful(holder)
            and count_tokens(self._holders)[holder.state.token] == 1
        ):
            holder.excused_at = -1

    def _excuse(self, token: bytes) -> None:
        """Excuse every device that shares a state with one that was tampered with."""
        sharing = [h for h in self._holders if h.state and h.state.token == token]
        if len(sharing) > 1:
            for holder in sharing:
                holder.excused_at = self.phase
