"""Where what is kept lies: memory, the cache folder, and Redis where several proxies share it.

Everything at rest is private text. It is sealed with a key of this installation, or with the one
in CONTEXT_KEY_FILE where several proxies share a store. A folder that cannot be used costs nothing
but durability; a key that cannot be read stops the start, since a fresh one would leave everything
that was kept unreadable.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mitmcontext.condense.ledger import begin
from mitmcontext.settings import KEY_FILE, REDIS_URL, BadSetting, Settings
from mitmcontext.stores.base import Store
from mitmcontext.stores.keys import (
    NAMES,
    SEALING,
    TENANTS,
    installation_key,
    read_key,
    subkey,
)
from mitmcontext.stores.lease import Leases
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.private import private_folder
from mitmcontext.stores.redis import RedisStore
from mitmcontext.stores.redis_server import Server
from mitmcontext.stores.sealed import Sealed
from mitmcontext.stores.sqlite import Sqlite
from mitmcontext.stores.tiers import Tiers

_LEDGER: Final = "frozen edits"
_FILE: Final = "ledger.db"
_SIZE: Final = 512 << 20
_CACHE: Final = "cache"
_CACHE_FILE: Final = "cache.db"
_CACHE_SIZE: Final = 64 << 20
_CACHE_MEMORY: Final = 16 << 20
_CHOICES: Final = "choices"
_CHOICES_FILE: Final = "choices.db"
_CHOICES_SIZE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Shelves:
    """The key that tenants' digests are made with, and what survives a restart.

    `far` is None where nothing does, and `note` says why. `shared` says whether other proxies
    write there, too. `choices` are where a team's people are remembered who opted out. `leases` say
    which of the proxies does what one is enough for; None where there is one proxy. `key` is what
    all keys come from: the spare one of the next load.
    """

    tenants: bytes
    far: Tiers | None
    shared: bool
    note: str
    choices: tuple[Store, ...] = ()
    leases: Leases | None = None
    key: bytes = b""


def shelves(settings: Settings, environment: Mapping[str, str], spare: bytes) -> Shelves:
    """Open what the settings name.

    Args:
        settings: where to keep things.
        environment: the secrets, and where the user's home is.
        spare: the key where none can be read or kept, 32 bytes. With the one of the load before, a
            reload finds again what is in memory.

    Raises:
        BadSetting: the key file or the address of Redis is none, or one is set without the other.
    """
    address, folder, key, note = _opened(settings, environment, spare)
    sealing = subkey(key, SEALING)
    tiers: list[Store] = []
    if not note:
        tiers.append(Sealed(Sqlite(folder / _FILE, _SIZE), sealing, _LEDGER))
        begin(tiers[0])
    choices: list[Store] = []
    leases: Leases | None = None
    if settings.context_team and not note:
        choices.append(Sealed(Sqlite(folder / _CHOICES_FILE, _CHOICES_SIZE), sealing, _CHOICES))
    if address:
        server = _server(address)
        name = _name(subkey(key, NAMES))
        tiers.append(Sealed(RedisStore(server, f"ledger-{name}"), sealing, _LEDGER))
        leases = Leases(RedisStore(server, f"leases-{name}"))
        if settings.context_team:
            choices.append(Sealed(RedisStore(server, f"choices-{name}"), sealing, _CHOICES))
    far = Tiers(tiers) if tiers else None
    return Shelves(subkey(key, TENANTS), far, bool(address), note, tuple(choices), leases, key)


def cache_shelf(settings: Settings, environment: Mapping[str, str]) -> tuple[Tiers, bytes]:
    """The tiers of a cache for programs: memory, file, Redis; and a key to digest its keys with.

    Raises:
        BadSetting: as `shelves` does.
    """
    address, folder, key, note = _opened(settings, environment, secrets.token_bytes(32))
    sealing = subkey(key, SEALING)
    tiers: list[Store] = [Memory(cells(_CACHE_MEMORY))]
    if not note:
        tiers.append(Sealed(Sqlite(folder / _CACHE_FILE, _CACHE_SIZE), sealing, _CACHE))
    if address:
        name = _name(subkey(key, NAMES))
        tiers.append(Sealed(RedisStore(_server(address), f"cache-{name}"), sealing, _CACHE))
    return Tiers(tiers), subkey(key, TENANTS)


def _opened(
    settings: Settings, environment: Mapping[str, str], spare: bytes
) -> tuple[str, Path, bytes, str]:
    """The address of Redis, the folder, the key; and why the folder cannot be used, or ""."""
    address = environment.get(REDIS_URL, "")
    given = environment.get(KEY_FILE, "")
    if address and not given:
        raise BadSetting(
            f"{REDIS_URL} needs {KEY_FILE}: the proxies that share a Redis share a key"
        )
    named = settings.context_cache_dir
    note, folder = "", Path()
    try:
        folder = _at_home("context_cache_dir", named) if named else user_cache_folder(environment)
        private_folder(folder)
        key = _given_key(given) if given else installation_key(folder / "key")
    except BadSetting:
        raise
    except (OSError, ValueError) as error:
        note = str(error) if isinstance(error, ValueError) else type(error).__name__
        key = _given_key(given) if given else spare
    return address, folder, key, note


def check_folder(settings: Settings) -> None:
    """Refuse a folder now that could not be opened at the next start, or after a reload.

    Raises:
        BadSetting: nobody knows where it is.
    """
    _at_home("context_cache_dir", settings.context_cache_dir)


def _at_home(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadSetting(f"{name} must not name the home of somebody who has none") from None


def user_cache_folder(environment: Mapping[str, str]) -> Path:
    """The platform's folder for a user's caches, with our name in it.

    Raises:
        ValueError: that is in the user's home, and nobody knows where this is.
    """
    if sys.platform == "win32":
        local = environment.get("LOCALAPPDATA")
        base = Path(local) if local else _home(environment) / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _home(environment) / "Library" / "Caches"
    else:
        named = environment.get("XDG_CACHE_HOME")
        base = Path(named) if named else _home(environment) / ".cache"
    return base / "mitmcontext"


def _home(environment: Mapping[str, str]) -> Path:
    if environment.get("HOME"):
        return Path(environment["HOME"])
    try:
        return Path.home()
    except RuntimeError:
        # As in a container whose user has a number and nothing else.
        raise ValueError("this user has no home; context_cache_dir names another folder") from None


def _given_key(path: str) -> bytes:
    try:
        return read_key(_at_home(KEY_FILE, path))
    except ValueError as error:
        raise BadSetting(str(error)) from None


def _name(names: bytes) -> str:
    """Keeps apart installations that share a server, and says nothing about the key."""
    return hashlib.sha256(names).hexdigest()[:16]


def _server(address: str) -> Server:
    try:
        return Server(address)
    except ValueError as error:
        raise BadSetting(str(error)) from None
