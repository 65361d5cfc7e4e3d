"""Devices that misjudge what became of their uploads."""

from __future__ import annotations

from dataclasses import replace

from flwr_caesar.sync import settle
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import FolderStore


def forgetting(state, header, new_token):
    """Lose what was not applied."""
    judged = settle.settle(state, header, new_token)
    return replace(judged, state=replace(judged.state, residual=state.residual))


def restoring_all(state, header, new_token):
    """Take back what was applied, too."""
    judged = settle.settle(state, header, new_token)
    residual = judged.state.residual
    for pending in state.pending:
        if pending.upload_id in judged.applied:
            residual = settle.add_floats(residual, settle._decode(state, pending)[0])
    return replace(judged, state=replace(judged.state, residual=residual))


def deaf(state, header, new_token):
    """Take nothing for applied."""
    return settle.settle(state, replace(header, applied=()), new_token)


MISJUDGING = [forgetting, restoring_all, deaf]


def taking_unreadable_for_broken():
    """Return a `FolderStore.load` that starts anew where it cannot read."""
    load = FolderStore.load

    def hasty(self, lineage):
        try:
            return load(self, lineage)
        except StateError:
            return None

    return hasty


def minding_the_machine(*, what):
    """Return a `FolderStore.load` that starts anew where `what` is another than it was.

    `what` is called with the folder.
    """
    load, seen = FolderStore.load, {}

    def wary(self, lineage):
        state = load(self, lineage)
        now = what(self.root)
        return state if seen.setdefault((self.root, lineage), now) == now else None

    return wary
