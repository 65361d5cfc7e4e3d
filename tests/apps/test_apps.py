"""Every app under every strategy of ours trains as under plain Flower, or is refused.

No reply is dropped, the first and the last model are as good within the noise of plain
Flower (`tests.apps.noise`), what the app observes is the same, and no message is larger
than Flower's by more than `tests.apps.verdict.ALLOWANCE`.
"""

from __future__ import annotations

import pytest

from .app import App
from .catalogue import APPS
from .strategies import OURS, applies
from .verdict import judge, missing

CASES = [
    pytest.param(app, name, id=f"{app.title}: {name}")
    for app in APPS
    for name in OURS
    if applies(app, name)
]


@pytest.mark.parametrize(("app", "name"), CASES)
def test_an_app_trains_as_under_plain_flower_or_is_refused(app: App, name: str) -> None:
    if reason := missing(app):
        pytest.skip(reason)
    assert judge(app, name).faults == []
