"""Only what the locks name is installed, in the bytes that they name, and nothing starts by itself.

A `.pth` file with an import in it runs whenever Python starts: that is how a stolen package steals.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "tests/requirements.lock")
# What a virtual environment has of itself.
OWN = {"pip"}


def starting(folder: Path) -> Iterator[str]:
    """The files in a folder for packages that run whenever Python starts."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".pth" or path.stem in ("sitecustomize", "usercustomize"):
            yield path.name


def pinned() -> dict[str, str]:
    """Names and versions in the locks."""
    found = {}
    for lock in LOCKS:
        for line in (ROOT / lock).read_text().splitlines():
            if pin := re.match(r"([\w.-]+)(?:\[[^]]*\])?==(\S+)", line):
                found[plain(pin[1])] = pin[2]
    return found


def plain(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A package with these files, made by hand."""
    info = f"{name}-1.0.dist-info"
    held = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in held.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        rows.append(f"{path},sha256={digest.decode()},{len(text.encode())}")
    held[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    made = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in held.items():
            # Always the same time, so that the same files are the same bytes.
            archive.writestr(zipfile.ZipInfo(path), text)
    return made


def install(folder: Path, requirement: str) -> subprocess.CompletedProcess[str]:
    """What the scripts' own pip does with a line of a lock; packages come from the folder alone."""
    (folder / "lock").write_text(requirement + "\n")
    script = (
        f'root={shlex.quote(str(ROOT))}; . "$root/scripts/lib/setup.sh"\n'
        f"run_pip {shlex.quote(sys.executable)} install --no-index --no-cache-dir "
        f"--find-links {shlex.quote(str(folder))} --target {shlex.quote(str(folder / 'into'))} "
        f"-r {shlex.quote(str(folder / 'lock'))}"
    )
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def test_nothing_starts_with_python_in_the_environment_of_the_scripts() -> None:
    for name in ("purelib", "platlib"):
        assert list(starting(Path(sysconfig.get_path(name)))) == []


def test_nothing_is_installed_that_no_lock_names() -> None:
    if not Path(sys.prefix).is_relative_to(ROOT):
        pytest.skip("these tests do not run in the environment that the scripts make")
    installed = {plain(one.name): one.version for one in distributions()}
    named = pinned()
    assert {n: v for n, v in installed.items() if n not in OWN and named.get(n) != v} == {}


def test_a_package_in_other_bytes_than_the_lock_names_is_refused(tmp_path: Path) -> None:
    good = hashlib.sha256(wheel(tmp_path, "harmless", {"harmless.py": ""}).read_bytes()).hexdigest()
    line = f"harmless==1.0 --hash=sha256:{good}"
    assert install(tmp_path, "harmless==1.0").returncode != 0
    wheel(tmp_path, "harmless", {"harmless.py": "", "harmless_init.pth": "import harmless\n"})
    refused = install(tmp_path, line)
    assert refused.returncode != 0
    assert "DO NOT MATCH" in refused.stderr
    assert not (tmp_path / "into").exists()
    # And what the lock names is installed.
    wheel(tmp_path, "harmless", {"harmless.py": ""})
    taken = install(tmp_path, line)
    assert (taken.returncode, list(starting(tmp_path / "into"))) == (0, []), taken.stderr


def test_a_file_that_starts_with_python_would_be_found(tmp_path: Path) -> None:
    made = wheel(tmp_path, "harmful", {"harmful.py": "", "harmful_init.pth": "import harmful\n"})
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert install(tmp_path, f"harmful==1.0 --hash=sha256:{digest}").returncode == 0
    assert list(starting(tmp_path / "into")) == ["harmful_init.pth"]
