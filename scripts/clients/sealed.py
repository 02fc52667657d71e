"""No network but the loopback, for this process and all that it starts from now on."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 0x1


def seal() -> bool:
    """Whether it could be done. To be called before there are threads."""
    if sys.platform != "linux":
        return False
    try:
        leave_the_network()
        bring_up("lo")
    except OSError:
        return False
    return True


def leave_the_network() -> None:
    """Go into a network namespace of our own. Raises OSError where that is not allowed."""
    if sys.platform != "linux":
        raise OSError
    user, group = os.getuid(), os.getgid()
    try:
        os.unshare(os.CLONE_NEWNET)
    except PermissionError:
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")


def bring_up(interface: str) -> None:
    """What `ip link set ... up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        asked = struct.pack("16sh", interface.encode(), 0)
        _, flags = struct.unpack("16sh", fcntl.ioctl(any_, _SIOCGIFFLAGS, asked))
        wanted = struct.pack("16sh", interface.encode(), flags | _UP)
        fcntl.ioctl(any_, _SIOCSIFFLAGS, wanted)
