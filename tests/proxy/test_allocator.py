"""What many threads have freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ADDON = Path(__file__).parents[2] / "addon"

# Twelve threads at once hold some megabytes in pieces, and free all but a piece here and there.
WORK = """
import sys, threading
from pathlib import Path
if sys.argv[1] == "told":
    from mitmcontext.proxy.allocator import keep_little
    assert keep_little()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept, gate = [], threading.Barrier(12)
def work():
    gate.wait()
    for _ in range(20):
        held = [bytearray(20_000) for _ in range(400)]
        kept.append(held[-1])
        del held
before = resident()
threads = [threading.Thread(target=work) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_threads_leave_less_behind() -> None:
    left = [
        int(
            subprocess.run(
                [sys.executable, "-c", WORK, how],
                env={"PYTHONPATH": str(ADDON)},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for how in ("as it is", "told")
    ]
    assert left[1] < left[0] * 0.9, left
