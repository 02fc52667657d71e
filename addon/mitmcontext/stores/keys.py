"""Where the secret key comes from, and the keys for single purposes that are made of it."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mitmcontext.stores.private import FILE_MODE

KEY_SIZE: Final = 32

TENANTS: Final = "tenants"
"""The purpose of the key that digests of credentials are made with."""

SEALING: Final = "sealing"
"""The purpose of the key that values at rest are encrypted with."""

NAMES: Final = "names"
"""The purpose of the key that other keys of stores are digested with, and that tells apart
installations which share one Redis."""

_LONGEST: Final = 4096
_WHAT: Final = "must hold 32 random bytes as 64 hex digits or as base64 (openssl rand -hex 32)"


def subkey(key: bytes, purpose: str) -> bytes:
    """The 32-byte key for one purpose (HKDF-SHA256); nothing follows from it about the others."""
    made = HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=b"mitmcontext 1 " + purpose.encode())
    return made.derive(key)


def read_key(path: Path, name: str = "CONTEXT_KEY_FILE") -> bytes:
    """The 32 bytes that a key file holds.

    Args:
        path: the file; root's files are accepted, too.
        name: what the file is called in the sentence.

    Raises:
        ValueError: a sentence that says what is wrong with the file.
    """
    # Without O_NONBLOCK a named pipe would hold up the start for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{name} must not be a symbolic link") from None
        raise ValueError(f"{name} cannot be read ({type(error).__name__})") from None
    try:
        _check(os.fstat(handle), name)
        return _decoded(os.read(handle, _LONGEST), name)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({type(error).__name__})") from None
    finally:
        os.close(handle)


def installation_key(path: Path) -> bytes:
    """The key of this installation; made at the first call.

    Args:
        path: in a private folder.

    Raises:
        ValueError: a sentence that says what is wrong with the file.
        OSError: it cannot be made.
    """
    name = "the installation's key file"
    if not path.is_symlink() and not path.exists():
        _make(path)
    return read_key(path, name)


def _make(path: Path) -> None:
    """Write a key under another name first: who finds the file finds all of it."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_SIZE) + "\n")
            file.flush()
            os.fsync(handle)
        # Unlike a rename this fails where another process was faster; then that one's key holds.
        path.hardlink_to(new)
    except FileExistsError:
        pass
    finally:
        new.unlink(missing_ok=True)


def _check(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} must be a regular file")
    if os.name != "posix":
        return
    if found.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{name} must belong to the user that runs the proxy")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"{name} must be readable by its owner alone (chmod 600)")


def _decoded(text: bytes, name: str) -> bytes:
    text = text.strip()
    for decode in (binascii.unhexlify, _base64):
        try:
            key = decode(text)
        except ValueError:
            continue
        if len(key) == KEY_SIZE:
            return key
    raise ValueError(f"{name} {_WHAT}")


def _base64(text: bytes) -> bytes:
    """Either alphabet, with or without its padding."""
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
