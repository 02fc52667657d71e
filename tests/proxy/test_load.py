"""When there is more to do than the event loop can do at once."""

from __future__ import annotations

import itertools

import pytest

from mitmcontext.proxy.load import Load


class Loop:
    """An event loop on which requests come, each of which takes it some of the time."""

    def __init__(self, clients: int, each: float, busy: float) -> None:
        self.passed = self.worked = 0.0
        self.load = Load(lambda: self.passed, lambda: self.worked)
        self._clients = itertools.cycle(f"client {number}" for number in range(clients))
        self._each = each
        self._busy = busy

    def run(self, seconds: float) -> set[bool]:
        """Let requests come for so long; what was said of the load meanwhile."""
        said = set()
        until = self.passed + seconds
        while self.passed < until:
            self.passed += self._each
            self.worked += self._each * self._busy
            self.load.came(next(self._clients))
            said.add(self.load.is_heavy)
        return said


@pytest.mark.parametrize(
    ("clients", "each", "busy", "heavy"),
    [
        (16, 0.002, 0.95, True),
        (16, 0.002, 0.6, True),
        (1, 0.002, 0.95, False),
        (16, 0.002, 0.3, False),
        # A large request of one of them takes a while.
        (16, 0.04, 0.95, False),
        (16, 40.0, 0.0001, False),
    ],
)
def test_many_clients_and_a_busy_loop_are_a_load(
    clients: int, each: float, busy: float, heavy: bool
) -> None:
    loop = Loop(clients, each, busy)
    loop.run(0.2)
    assert loop.run(10 * each + 1) == {heavy}


def test_it_is_over_when_the_next_requests_come() -> None:
    loop = Loop(16, 0.002, 0.95)
    loop.run(1)
    assert loop.load.is_heavy
    loop.passed += 0.3
    loop.worked += 0.2
    loop.load.came("client 1")
    assert not loop.load.is_heavy


def test_it_is_over_when_no_more_requests_come() -> None:
    """Turns on a WebSocket do not come as requests, and are counted again."""
    loop = Loop(16, 0.002, 0.95)
    loop.run(1)
    loop.passed += 0.3
    assert not loop.load.is_heavy
