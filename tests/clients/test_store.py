from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from flwr_caesar.clients.store import open_store
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import FolderStore


def context(**node_config: str | int) -> Context:
    return Context(1, 2, dict(node_config), RecordDict(), {})


def test_the_node_config_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    roots = []
    for config in ({"state-dir": "/x/y"}, {"partition-id": 3}, {}):
        with open_store(context(**config)) as store:
            assert isinstance(store, FolderStore)
            roots.append(store.root)
    default = tmp_path / "flwr-caesar"
    assert roots == [Path("/x/y"), default / "partition-3", default / "device"]
    with open_store(context(**{"state-dir": "context"})) as store:
        assert isinstance(store, ContextStore)


def test_a_user_without_a_home_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(StateError, match="give the SuperNode a state-dir"):
        open_store(context()).__enter__()
