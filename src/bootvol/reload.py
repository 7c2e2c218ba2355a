"""Applies changed settings to a running daemon: identities, reloadable plugins, certificates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol import plugins, private, reading, secrecy, settings
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, IReloadable
from bootvol.private import Kept
from bootvol.settings import PluginSettings, Settings
from bootvol.threads import StillRunning, Threads, at_most

T = TypeVar("T")
#: Digests of the files that each plugin's table names, by the place of the table.  None stands for
#: an unreadable file.
_Contents = dict[str, list[bytes | None]]

#: The tables of plugins.  Each plugin's table is compared by itself.
_PLUGINS: Final = frozenset({"identity", "hypervisor", "backends", "sources"})
#: Fields of :class:`Settings` about the file itself, without a table in the file.
_OF_THE_FILE: Final = frozenset({"file", "secret_files", "holds_secrets"})


class Reloader:
    """Reads the configuration file again on request, and applies the changes.

    A mistake in the file changes nothing.  If one part fails, the other parts are applied.  The
    log names the applied parts, and the changes that need a restart.

    :param config: the settings at the start of the daemon.
    :param plugins: the plugins' objects, by the places of their tables.
    :param certificates: functions by endpoint description.  Each function reads the files of that
        endpoint again, blocks, and returns False if the endpoint has no TLS.
    :param threads: threads that read the files and do nothing else, since a hanging disk keeps
        them.
    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(
        self,
        config: Settings,
        plugins: Mapping[str, object],
        certificates: Mapping[str, Callable[[], bool]],
        threads: Threads,
        clock: IReactorTime,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._clock = clock
        self._certificates = certificates
        self._threads = threads
        # The settings that the plugins use now, by the places of their tables.
        self._used = dict(config.plugins())
        self._contents = _contents(config)
        self._lock = DeferredLock()

    def reload(self) -> Deferred[None]:
        """Apply the current configuration file.  The Deferred fires when done, and never fails."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> None:
        applied = []
        for endpoint, read in self._certificates.items():
            key = f"api.listen[{self._config.api.listen.index(endpoint)}]"
            try:
                if await self._in_time(self._threads.run(_read, key, endpoint, read)):
                    applied.append(f"the certificates of {endpoint}")
            except Exception as error:
                self._stays(f"the certificates of {endpoint} stay as they were", error)
        try:
            config, contents = await self._in_time(
                self._threads.run(_load, self._config.file, self._config.api.listen)
            )
        except Exception as error:
            self._stays("the settings stay as they were", error)
        else:
            applied += await self._apply(config, contents)
        self._log.info("applied: {applied}", applied=", ".join(applied) or "nothing new")

    async def _apply(self, config: Settings, contents: _Contents) -> list[str]:
        applied = []
        later = _differing(self._config, config)
        found = dict(config.plugins())
        for place in sorted(self._used.keys() | found.keys()):
            before, after = self._used.get(place), found.get(place)
            if before == after and self._contents.get(place) == contents.get(place):
                continue
            plugin = self._plugins.get(place)
            if not _only_options_differ(before, after) or not IReloadable.providedBy(plugin):
                later.append(place)
                continue
            assert after is not None  # noqa: S101 - for mypy
            try:
                await self._in_time(IReloadable(plugin).reload(after.options))
            except Exception as error:
                self._stays(f"{place} stays as it was", error)
            else:
                self._used[place], self._contents[place] = after, contents.get(place, [])
                applied.append(place)
        if later:
            self._log.warn("changed, and applied by a restart only: {later}", later=_list(later))
        return applied

    async def _in_time(self, work: Coroutine[Deferred[object], object, T]) -> T:
        """Return the result of some work.  Work that has not ended in time does no further step.

        :raises ConfigurationError: if the work has not ended in time.  The next SIGHUP must not
            wait for a hanging disk.
        """
        running = Deferred.fromCoroutine(work)
        try:
            return await at_most(self._clock, plugins.PATIENCE, running)
        except StillRunning:
            # Settings that are applied late must not undo later ones, with the removal of a user.
            running.cancel()
            raise ConfigurationError(
                f"no answer after {plugins.PATIENCE:.0f} s: a disk or a service hangs"
            ) from None

    def _stays(self, what: str, error: Exception) -> None:
        """Log a part that could not be applied.

        :param what: text that says which part stays as before.
        """
        self._log.error("{what}: {error}", what=what, error=str(error) or type(error).__name__)


def _read(key: str, endpoint: str, read: Callable[[], bool]) -> bool:
    """Read the certificates of an endpoint again.  Blocks.

    :returns: whether the endpoint has certificates.
    :raises ConfigurationError: if other users may read the key, or replace a file.
    """
    for mistake in secrecy.of_endpoint(key, endpoint):
        raise ConfigurationError(str(mistake))
    return read()


def _contents(config: Settings) -> _Contents:
    """Return the digests of the files that plugins rely on, such as authorities.  Blocks.

    The files of backends are left out: no backend takes new settings, and the start must not wait
    for the disk of a backend.
    """
    return {
        place: [
            _digest(path)
            for kept in (Kept.TRUSTED, Kept.SECRET)
            for path in private.paths(each.options, kept)
        ]
        for place, each in config.plugins()
        if not isinstance(each.descriptor, BackendPlugin)
    }


def _digest(path: Path) -> bytes | None:
    try:
        return sha256(reading.content(path)).digest()
    except OSError:
        return None


def _load(file: Path, listening: Collection[str]) -> tuple[Settings, _Contents]:
    """Read the configuration file again, and the files that plugins rely on.  Blocks.

    :param listening: endpoints where the daemon listens already.  A bad certificate there was
        logged before, and must not keep a removed token valid.
    :raises ConfigurationError: if the file has a mistake, or if other users may read a secret.
    """
    config = settings.load(file, listening)
    found = [*secrecy.of_files(config), *private.check_options(config.identity.options)]
    if fatal := [f"{file}: {each}" for each in found if each.fatal]:
        raise ConfigurationError("\n".join(fatal))
    return config, _contents(config)


def _differing(before: Settings, after: Settings) -> list[str]:
    """Return the names of the differing tables, without the tables of plugins."""
    left_out = _PLUGINS | _OF_THE_FILE
    names = [each.name for each in attrs.fields(Settings) if each.name not in left_out]
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _only_options_differ(before: PluginSettings | None, after: PluginSettings | None) -> bool:
    """Return whether two tables configure one plugin and differ only in the plugin's own keys."""
    if before is None or after is None:
        return False
    return attrs.evolve(before, options=after.options) == after


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
