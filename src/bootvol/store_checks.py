"""Checks of the backends' stores, for the start of the daemon and ``check-config --machine``."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from bootvol import locks
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin
from bootvol.patience import found_in_time, in_time
from bootvol.reactors import IReactor
from bootvol.settings import PluginSettings, Settings
from bootvol.store import stores
from bootvol.store.database import Database


def check(config: Settings, reactor: IReactor) -> Iterator[Mistake]:
    """Compare the backends' stores with those in the database; change nothing.

    A database that cannot be read has no stores here: other checks tell why.

    :param reactor: is not started.
    """
    known = _remembered(config, reactor)
    for n, configured in enumerate(config.backends):
        if (identity := known.get(configured.name)) is not None:
            key = f"backends[{n}].name"
            look = partial(_compared, key, configured, identity)
            # The daemon runs without a backend until that one answers.
            yield from found_in_time(key, configured.name, look, fatal=False)


def _compared(key: str, configured: PluginSettings, identity: str) -> Iterator[Mistake]:
    descriptor = configured.descriptor
    if not isinstance(descriptor, BackendPlugin) or descriptor.store is None:
        return
    found = descriptor.store(configured.options)
    if found != identity:
        has = f"the store {found}" if found else "no store yet"
        yield Mistake(
            key,
            configured.name,
            f"the volumes lie in the store {identity}, and the backend leads to {has}",
            "Mount the right disk, or correct the backend's settings. To continue without those"
            f" volumes: bootvol db forget-store {configured.name}",
        )


def _remembered(config: Settings, reactor: IReactor) -> Mapping[str, str]:
    """Return the identities of the stores in the database, by the names of the backends."""
    url, directory = config.database, config.state.directory
    with contextlib.suppress(ConfigurationError):
        host = config.state.host or in_time(
            "state.directory", directory, lambda: locks.known_id(directory)
        )
        if url.get_backend_name() == "sqlite":
            file = Path(url.database or "")
            return in_time("state.url", file, lambda: _in_sqlite(file, host))
        known = Database(url, reactor).alone(stores.remembered, host)
        return {name: each.identity for name, each in known.items()}
    return {}


def _in_sqlite(file: Path, host: str) -> Mapping[str, str]:
    # No file exists before the first start, and former versions knew no stores.
    with contextlib.suppress(sqlite3.Error, OSError):
        if file.is_file():
            # With "immutable", SQLite makes no files beside the database.
            uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
            query = "SELECT backend, identity FROM stores WHERE host IN ('', ?) ORDER BY host"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                return dict(database.execute(query, (host,)))
    return {}
