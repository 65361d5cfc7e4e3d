"""Codecs of third parties, installed for the length of a test."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from flwr_caesar.codec.contract import registry


def install(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """Make `registry` see entry points, given as ``id="module:attribute"``."""
    group = registry.ENTRY_POINT_GROUP
    points = EntryPoints(
        EntryPoint(name.replace("_", "-"), target, group)
        for name, target in targets.items()
    )
    monkeypatch.setattr(
        registry, "entry_points", lambda **selection: points.select(**selection)
    )
