"""What holds for all tests."""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Laws are checked for what they say, not for how fast a crowded machine checks them.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def executorch() -> None:
    """Skip with a clear line where no program for phones can be made."""
    from flwr_caesar.android.errors import ExportError
    from flwr_caesar.android.lowering import require_executorch

    try:
        require_executorch()
    except ExportError as error:
        pytest.skip(f"no program is made: {error}")


@cache
def _has_servers(file: Path) -> bool:
    """Whether a file says that it has tests of real servers."""
    text = file.read_bytes()
    return b"mark.servers" in text or b"whole_runs" in text


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no other files for tests of servers alone: each worker would import all."""
    a_test = collection_path.match("test_*.py")
    skip = a_test and config.option.markexpr == "servers"
    return True if skip and not _has_servers(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of real servers: they take long and mostly wait.

    Their own folder comes first: its files are the longest, and one process has a file.
    """
    for item in items:
        if item.get_closest_marker("servers") and not _has_servers(item.path):
            raise pytest.UsageError(f"{item.path} does not say that it has servers")
    items.sort(
        key=lambda item: (
            item.get_closest_marker("servers") is None,
            item.path.parent.name != "servers",
        )
    )


def pytest_collection_finish() -> None:
    """Exempt all that was imported from garbage collection, which would go through it.

    Millions of objects; a test then makes few beside them.
    """
    gc.collect()
    gc.freeze()
