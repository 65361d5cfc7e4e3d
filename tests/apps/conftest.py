"""Flower logs each round; here that would be thousands of lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    logger = logging.getLogger("flwr")
    handlers = logger.handlers
    logger.handlers = [logging.NullHandler()]
    yield
    logger.handlers = handlers
