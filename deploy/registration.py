"""Keeping Flower's list of keys as the fleet file has it."""

from __future__ import annotations

import logging

from .control import Control, KeySpentError
from .fleet import Fleet

_LOG = logging.getLogger(__name__)


def reconcile(fleet: Fleet, control: Control) -> int:
    """Register every device that Flower does not know, and unregister removed ones.

    The fleet file is what holds: after the SuperLink was away, or lost its database,
    this makes it right again. Keys that were registered by Flower's own command stay.

    Returns
    -------
    int
        How many keys were registered or unregistered.
    """
    nodes = control.nodes()
    changes = 0
    for device in fleet.devices():
        node = nodes.get(device.public_key)
        if node is not None:
            node_id = node.node_id
        else:
            try:
                node_id = control.register(device.public_key, device.name)
            except KeySpentError:
                _LOG.warning(
                    "Flower does not take the key of %s again: remove the device, and "
                    "let it join with a new key",
                    device.name,
                )
                continue
            changes += 1
        if node_id != device.node_id:
            fleet.registered(device.public_key, node_id)
    for key in fleet.removed_keys() & nodes.keys():
        control.unregister(nodes[key].node_id)
        changes += 1
    return changes
