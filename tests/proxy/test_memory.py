"""What a proxy once used goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Bodies of all sizes come and go in several threads; a little of each request stays for longer.
_TRAFFIC = """
import random, sys, threading
from pathlib import Path
from mitmcontext.proxy import memory

if sys.argv[1] == "give back":
    memory.give_back()
stays = []

def serve(seed):
    chance, bodies = random.Random(seed), []
    for _ in range(1500):
        bodies.append(bytearray(chance.randrange(60_000, 600_000)))
        stays.append(bytes(chance.randrange(600, 3_000)))
        del bodies[: max(0, len(bodies) - chance.randrange(1, 24))]

threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
pages = int(Path("/proc/self/statm").read_text().split()[1])
print(pages * 4096 >> 20)
"""


def megabytes(how: str, **environment: str) -> int:
    """The memory of a process after such traffic."""
    command = [sys.executable, "-c", _TRAFFIC, how]
    known = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    path = os.pathsep.join(path for path in sys.path if path)
    made = known | {"PYTHONPATH": path} | environment
    ran = subprocess.run(command, env=made, check=True, capture_output=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_is_freed_goes_back() -> None:
    given_back, kept = megabytes("give back"), megabytes("keep")
    assert given_back < kept - 5
    assert megabytes("give back", MALLOC_ARENA_MAX="8") > given_back
