"""Keys: read from private files only, made once, and never the same for two purposes."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path

import pytest

from mitmcontext.stores.keys import NAMES, SEALING, TENANTS, installation_key, read_key, subkey

KEY = bytes(range(32))


def written(folder: Path, text: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\n",
        base64.b64encode(KEY),
        base64.urlsafe_b64encode(b"\xff" * 32).rstrip(b"=") + b"\r\n",
    ],
)
def test_a_key_is_32_bytes_in_hex_or_base64(tmp_path: Path, text: bytes) -> None:
    assert read_key(written(tmp_path, text)) in (KEY, b"\xff" * 32)


@pytest.mark.parametrize(
    "text", [b"", b"secret", KEY, KEY.hex().encode()[:-2], b"ab" * 33, base64.b64encode(KEY[1:])]
)
def test_anything_else_is_refused_without_quoting_it(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^CONTEXT_KEY_FILE must hold 32 random bytes") as caught:
        read_key(written(tmp_path, text))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="readable by its owner alone"):
        read_key(written(tmp_path, KEY.hex().encode(), mode))


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, KEY.hex().encode())
    (tmp_path / "link").symlink_to(path)
    for read in (read_key, installation_key):
        with pytest.raises(ValueError, match="must not be a symbolic link"):
            read(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must not be a symbolic link"):
        installation_key(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to give away")
def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, KEY.hex().encode())
    os.chown(path, 12_345, -1)
    with pytest.raises(ValueError, match="must belong to the user"):
        read_key(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a regular file|cannot be read"):
        read_key(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_key(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="must be a regular file"):
        read_key(tmp_path / "pipe")


def test_the_installations_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = installation_key(path)
    assert len(key) == 32
    assert installation_key(path) == key == read_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_who_make_it_at_once_all_have_the_same(tmp_path: Path) -> None:
    keys: list[bytes] = []
    ready = threading.Barrier(8)

    def make() -> None:
        ready.wait()
        keys.append(installation_key(tmp_path / "key"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = {subkey(KEY, purpose) for purpose in (TENANTS, SEALING, NAMES)}
    assert len({*keys, KEY}) == 4
    assert subkey(KEY, SEALING) == subkey(KEY, SEALING)
    assert subkey(bytes(32), SEALING) not in keys
