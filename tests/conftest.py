"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal
from itertools import groupby, islice

import pytest
from hypothesis import HealthCheck, settings

# What helpers assert is explained as what tests do.
pytest.register_assert_rewrite("tests.wire.reading")

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

# Tests with whole proxies and browsers: most take seconds, most others milliseconds.
_LONG = frozenset({"e2e", "browser", "scripts"})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal long tests out to all workers and let them begin with these, a module at a time.

    xdist's `worksteal` gives each worker as many tests, in their order, and whoever is done takes
    from the end of what others still have. So nobody has to wait for long tests at the end, and
    most modules stay with one worker, and with what their tests share.
    """
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    modules = [list(group) for _, group in groupby(items, lambda item: item.path)]
    long = [module for module in modules if _LONG.intersection(module[0].nodeid.split("/"))]
    hands: list[list[pytest.Item]] = [[] for _ in range(count)]
    for module in sorted(long, key=len, reverse=True):
        min(hands, key=len).extend(module)
    dealt = {id(item) for hand in hands for item in hand}
    rest = (item for item in items if id(item) not in dealt)
    for number, hand in enumerate(hands):
        size = len(items) * (number + 1) // count - len(items) * number // count
        hand.extend(islice(rest, max(0, size - len(hand))))
    items[:] = [*(item for hand in hands for item in hand), *rest] if count > 1 else items


def pytest_collection_finish() -> None:
    """What was loaded and collected stays: garbage is not looked for among it again and again."""
    gc.collect()
    gc.freeze()
