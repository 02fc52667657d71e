"""What a proxy once used goes back to the system, by what the C library says of itself."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Bodies come and go in several threads. What is freed first raises the size from which on glibc
# would give blocks back, were it not told.
_TRAFFIC = """
import ctypes, sys, threading
from mitmcontext.proxy import memory

if sys.argv[1] == "give back":
    memory.give_back()
together = threading.Barrier(8)

def serve():
    bodies = [bytearray(size) for size in (2_000_000, 900_000, 300_000, 40_000)]
    together.wait()

threads = [threading.Thread(target=serve) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = libc.fopen(sys.argv[2].encode(), b"w")
body = bytearray(300_000)
libc.malloc_info(0, file)
libc.fclose(file)
"""


def told(how: str, folder: str, **environment: str) -> str:
    """What glibc says of a process after such traffic, while it holds a body of 300,000 bytes."""
    command = [sys.executable, "-c", _TRAFFIC, how, f"{folder}/told.xml"]
    known = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    path = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(command, env=known | {"PYTHONPATH": path} | environment, check=True)
    return Path(folder, "told.xml").read_text("ascii")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_few_arenas_are_used_and_a_body_has_pages_of_its_own(tmp_path: Path) -> None:
    given_back, kept = (told(how, str(tmp_path)) for how in ("give back", "keep"))
    assert given_back.count("<heap nr=") <= 2 < kept.count("<heap nr=")
    assert _own_pages(given_back) == _own_pages(kept) + 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_somebody_has_set_stays(tmp_path: Path) -> None:
    assert told("give back", str(tmp_path), MALLOC_ARENA_MAX="5").count("<heap nr=") > 2


def _own_pages(told: str) -> int:
    """How many blocks have pages of their own."""
    return int(told.split('<total type="mmap" count="')[1].split('"')[0])
