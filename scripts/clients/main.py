"""Drive real clients through the proxy and print what came of each.

    main.py [--keep] [CLIENT...]

Ends with 0 if every client that was asked for works. Without names all are tried, and one that
cannot be installed on this machine is only reported.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

# Started as a script; the packages are one folder above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clients import install, sealed, stage
from clients.drivers import DRIVERS, KEYS
from clients.stage import Driver, Seen
from lib.environment import CACHE
from loopback import certificates

HEAD = (
    *("client", "version", "proxy", "CA", "API"),
    *("requests", "condensed", "refused", "verdict"),
)


@dataclass
class Row:
    """One line of the table."""

    driver: Driver
    version: str
    seen: Seen | None = None
    reason: str = ""  # why it is not installed
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.seen is None:
            return f"not installed: {self.reason}"
        return "works" if self.seen.works else "; ".join(self.seen.problems)

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        name, api = self.driver.name, self.driver.api
        if self.seen is None:
            return (name, self.version, "", "", api, "", "", "", self.verdict)
        seen = self.seen
        trusted = {True: "yes", False: "no", None: ""}[seen.trusted]
        steps = f"{seen.condensed} in {seen.steps} step{'' if seen.steps == 1 else 's'}"
        return (
            *(name, self.version, "yes" if seen.honoured else "no", trusted, api),
            *(str(seen.requests), steps, str(len(seen.refused)), self.verdict),
        )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows in columns, in the form that a README takes too."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    for number, line in enumerate(cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    names = sorted({driver.client for driver in DRIVERS})
    parser = argparse.ArgumentParser(prog="./scripts/test --clients")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(names))
    parser.add_argument("--keep", action="store_true", help="keep what clients and proxies said")
    found = parser.parse_args(given)
    unknown = set(found.clients) - set(names)
    if unknown:
        parser.error(f"no client is called {', '.join(sorted(unknown))}; there are: {names}")
    return found


def main(given: Sequence[str]) -> int:
    """Install, seal, drive, print."""
    asked = arguments(given)
    drivers = [driver for driver in DRIVERS if not asked.clients or driver.client in asked.clients]
    there = installed(list(dict.fromkeys(driver.client for driver in drivers)))
    if not sealed.seal():
        say("This system gives us no network of our own: only the environment leads the clients.")
    with place_for_runs(keep=asked.keep) as folder:
        rows = list(drive(drivers, there, folder))
    print("\n".join(table(rows)))
    failed = [row for row in rows if row.seen is not None and not row.seen.works]
    missing = [row for row in rows if row.seen is None]
    return 1 if failed or (missing and asked.clients) else 0


def installed(names: Sequence[str]) -> dict[str, install.Installed | str]:
    """Each client, or why it is not there. They mostly wait for the network, so two at a time."""

    def one(name: str) -> install.Installed | str:
        began = time.monotonic()
        try:
            return install.install(name)
        except install.NotInstalled as reason:
            return str(reason)
        finally:
            if (took := time.monotonic() - began) > 1:
                say(f"{name}: installing took {took:.0f} s")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


@contextlib.contextmanager
def place_for_runs(*, keep: bool) -> Iterator[Path]:
    """A folder in the checkout's .cache; what is kept there stays until the next time."""
    parent = CACHE / "clients"
    if keep:
        folder = parent / "runs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    else:
        parent.mkdir(parents=True, exist_ok=True)
        # A client may have left something that still writes.
        with tempfile.TemporaryDirectory(
            prefix="run-", dir=parent, ignore_cleanup_errors=True
        ) as temporary:
            yield Path(temporary)


def drive(
    drivers: Sequence[Driver], there: dict[str, install.Installed | str], folder: Path
) -> Iterator[Row]:
    """One client after the other: each has the machine to itself."""
    hosts = sorted({host for driver in drivers for host in driver.hosts})
    leaf = certificates.make(folder / "provider", hosts)
    for number, driver in enumerate(drivers):
        client = there[driver.client]
        if isinstance(client, str):
            yield Row(driver, "", reason=client)
            continue
        began = time.monotonic()
        own = replace(driver, environment={**KEYS, **driver.environment})
        seen = stage.play(own, client, folder / f"{number:02}-{driver.client}", leaf)
        row = Row(driver, client.version, seen, seconds=time.monotonic() - began)
        say(f"{driver.name}, {driver.api}: {row.verdict} ({row.seconds:.0f} s)")
        yield row


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
