"""Which store keeps this device's state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context

from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import FolderStore, default_state_dir
from flwr_caesar.sync.state import DeviceStore

IN_CONTEXT = "context"


@contextmanager
def open_store(context: Context) -> Iterator[DeviceStore]:
    """Open the store of the device that a Context belongs to.

    The node config's ``state-dir`` names a folder, or is ``"context"`` for Flower's
    Context, which a SuperNode loses when it restarts. Without it: the Context in a
    simulation, else a folder below the user's state directory, one for each
    ``partition-id``. SuperNodes that share a machine and have neither need a
    ``state-dir`` each.

    Raises
    ------
    StateError
        If there is no ``state-dir`` and this user has no home directory.
    """
    chosen = context.node_config.get("state-dir")
    if chosen == IN_CONTEXT or (chosen is None and _is_simulated()):
        from flwr_caesar.sync.context_store import ContextStore

        yield ContextStore(context.state)
        return
    with FolderStore(_default(context) if chosen is None else str(chosen)) as store:
        yield store


def _is_simulated() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _default(context: Context) -> Path:
    partition = context.node_config.get("partition-id")
    name = "device" if partition is None else f"partition-{partition}"
    try:
        return default_state_dir() / name
    except RuntimeError as err:
        raise StateError(
            "this user has no home directory to keep the device's state in; give the "
            "SuperNode a state-dir in its node config"
        ) from err
