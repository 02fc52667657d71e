"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal

from hypothesis import HealthCheck, settings

# Started in the background of a script, we would hand an ignored Ctrl-C on to what we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: how long a thing may take is said where it matters. Where a change
# is judged the examples are always the same; whoever runs the tests by hand gets new ones.
settings.register_profile(
    "unhurried",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """What was loaded and collected stays: garbage is not looked for among it again and again."""
    gc.collect()
    gc.freeze()
