"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# Laws are checked for what they say, not for how fast a crowded machine checks them.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of real servers: they take long and mostly wait."""
    items.sort(key=lambda item: item.get_closest_marker("servers") is None)
