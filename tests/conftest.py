"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Laws are checked for what they say, not for how fast a crowded machine checks them.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
