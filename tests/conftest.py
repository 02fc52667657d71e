"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is no failure: how long a thing may take is said where it matters. Where a change
# is judged the examples are always the same; whoever runs the tests by hand gets new ones.
settings.register_profile(
    "unhurried",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")
