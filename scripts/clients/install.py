"""Clients by their own package managers, into the checkout's .cache and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.environment import CACHE, ROOT

TABLE = ROOT / "scripts" / "clients" / "clients.toml"
FOLDER = CACHE / "clients"
SECONDS = 600.0
STAMP = "installed"


class NotInstalled(Exception):
    """It could not be installed; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One client as the table has it."""

    name: str
    version: str
    program: str
    npm: str = ""
    pip: str = ""
    also: Sequence[str] = ()
    python: str = ""

    @property
    def folder(self) -> Path:
        """Where it lies: a folder for each version."""
        return FOLDER / f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Installed:
    """A client that is there."""

    version: str
    program: Path


def wanted() -> dict[str, Wanted]:
    """The table."""
    with TABLE.open("rb") as table:
        return {name: Wanted(name, **row) for name, row in tomllib.load(table).items()}


def install(name: str) -> Installed:
    """Make sure that a client is there. Raises NotInstalled."""
    want = wanted().get(name)
    if want is None:
        return present(name)
    bin_ = want.folder / ("node_modules/.bin" if want.npm else "bin")
    found = Installed(want.version, bin_ / want.program)
    if (want.folder / STAMP).exists() and found.program.exists():
        return found
    shutil.rmtree(want.folder, ignore_errors=True)
    want.folder.mkdir(parents=True)
    for command in by_npm(want) if want.npm else by_pip(want):
        carry_out(command)
    if not found.program.exists():
        raise NotInstalled(f"the package has no {want.program}")
    (want.folder / STAMP).touch()
    return found


def present(name: str) -> Installed:
    """A program of the system's."""
    program = shutil.which(name)
    if program is None:
        raise NotInstalled(f"there is no {name} on this machine")
    shown = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    words = shown.stdout.split()
    return Installed(words[1] if len(words) > 1 else "?", Path(program))


def by_npm(want: Wanted) -> Iterator[list[str]]:
    """No lock file, no look-ups besides the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("there is no npm on this machine")
    yield [
        *(npm, "install", "--prefix", str(want.folder), "--cache", str(CACHE / "npm")),
        *("--no-package-lock", "--no-save", "--no-audit", "--no-fund", "--no-update-notifier"),
        *("--loglevel", "error", f"{want.npm}@{want.version}"),
    ]
    # npm may hold back a package's own script, which puts the program for this machine in place.
    for script in ("install.cjs", "postinstall.mjs"):
        found = want.folder / "node_modules" / want.npm / script
        if found.exists():
            yield [shutil.which("node") or "node", str(found)]


def by_pip(want: Wanted) -> Iterator[list[str]]:
    """An environment of its own, wheels only."""
    python = python_of(want.python)
    yield [python, "-m", "venv", str(want.folder)]
    yield [
        *(str(want.folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"),
        *("--no-compile", "--only-binary", ":all:", f"{want.pip}=={want.version}", *want.also),
    ]


def python_of(version: str) -> str:
    """A Python of this version: ours, or one that is found. Raises NotInstalled."""
    if not version or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    collections = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    collections.append(CACHE / "python")
    installed = (
        str(path)
        for folder in collections
        for path in folder.glob(f"*{version}*/bin/python{version}")
    )
    for candidate in (shutil.which(f"python{version}"), *installed):
        if candidate and runs(candidate):
            return candidate
    raise NotInstalled(f"it needs Python {version}, and there is none on this machine")


def runs(python: str) -> bool:
    """Whether this is a Python that can make environments, and no stand-in for one."""
    command = [python, "-c", "import ensurepip, ssl, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def carry_out(command: list[str]) -> None:
    """Run one step of an installation. Raises NotInstalled with the last line of what it said."""
    try:
        done = subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        raise NotInstalled(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{Path(command[0]).name} took longer than {SECONDS:.0f} s") from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise NotInstalled(said[-1] if said else f"{command[0]} ended with {done.returncode}")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The user's own, with caches in the checkout and without what would put packages elsewhere."""
    without = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME")
    kept = {name: value for name, value in variables.items() if name not in without}
    return kept | {
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
