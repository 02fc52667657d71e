"""Files and folders that belong to one user alone.

What lies in them is other people's conversations, so nothing is followed to where somebody else
may have pointed: symbolic links, files of other owners and what others could write to are refused.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077


class Refused(ValueError):
    """A file or folder that is not private; the message is a sentence without its path."""


def private_folder(folder: Path) -> None:
    """Make a folder that is ours alone, or see that it is.

    A folder that others may read is put right only while it is empty: with something in it, it
    may serve another purpose, and closing it would be a surprise.

    Raises:
        Refused: it is a link, somebody else's, no folder, or open to others.
        OSError: it cannot be made or looked at.
    """
    with suppress(FileExistsError):
        folder.mkdir(FOLDER_MODE, parents=True)
    found = folder.lstat()
    _check_owner(found, "the folder")
    if not stat.S_ISDIR(found.st_mode):
        raise Refused("the folder is no folder, or a symbolic link")
    if _is_open(found):
        if any(folder.iterdir()):
            raise Refused("the folder is open to others; its mode must be 0700")
        folder.chmod(FOLDER_MODE)


def private_file(path: Path) -> bool:
    """Make an empty file that is ours alone, or see that it is; whether it is new.

    It lies in a private folder, so the mode of a file of ours is put right without a race.

    Raises:
        Refused: it is a link, somebody else's, or no file.
        OSError: it cannot be made or looked at.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
        return True
    except FileExistsError:
        check_file(path)
        return False


def check_file(path: Path) -> None:
    """See that a file, if there is one, is ours alone. As `private_file`, but makes none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _check_owner(found, "a file")
    if not stat.S_ISREG(found.st_mode):
        raise Refused("a file is no regular file, or a symbolic link")
    if _is_open(found):
        path.chmod(FILE_MODE)


def _check_owner(found: os.stat_result, what: str) -> None:
    if os.name == "posix" and found.st_uid != os.geteuid():
        raise Refused(f"{what} belongs to somebody else")


def _is_open(found: os.stat_result) -> bool:
    """Whether others have any right to it. Windows keeps such rights elsewhere."""
    return os.name == "posix" and bool(stat.S_IMODE(found.st_mode) & _OTHERS)
