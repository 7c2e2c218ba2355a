"""Applies changed settings to a running daemon: identities, plugins that allow it, certificates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

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
#: Digests of the contents of files, by the places of the tables of plugins that name the files;
#: None is a file that cannot be read.
_Contents = dict[str, list[bytes | None]]

#: Tables of plugins: compared one by one, and not as a whole.
_PLUGINS: Final = frozenset({"identity", "hypervisor", "backends", "sources"})
#: What is about the file, and no table in it.
_OF_THE_FILE: Final = frozenset({"file", "secret_files", "holds_secrets"})


class Reloader:
    """Reads the configuration file again on request.

    A mistake in the file changes nothing; a part that fails leaves the other parts applied.  The
    log says what was applied, and what takes a restart.

    :param config: the settings that the daemon was started with.
    :param plugins: the plugins' objects, by the places of their tables.
    :param certificates: by endpoint description; each call reads the files of that endpoint again,
        blocks, and returns False if the endpoint has no TLS.
    :param threads: where files are read, and nothing else is done: a disk that hangs keeps them.
    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(
        self,
        config: Settings,
        plugins: Mapping[str, Any],
        certificates: Mapping[str, Callable[[], bool]],
        threads: Threads,
        clock: IReactorTime,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._clock = clock
        self._certificates = certificates
        self._threads = threads
        # What the plugins use by now, by the places of their tables.
        self._used = dict(config.plugins())
        self._contents = _contents(config)
        self._lock = DeferredLock()

    def reload(self) -> Deferred[None]:
        """Apply what the configuration file says now; fires when done, and never fails."""
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

    async def _in_time(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """Return what some work results in.

        :raises ConfigurationError: the work has not ended in time: the next SIGHUP must not wait
            for a disk that hangs.
        """
        try:
            running = Deferred.fromCoroutine(work)
            return await at_most(self._clock, plugins.PATIENCE, running)
        except StillRunning:
            raise ConfigurationError(
                f"there is no answer after {plugins.PATIENCE:.0f} s: a disk or a service hangs"
            ) from None

    def _stays(self, what: str, error: Exception) -> None:
        """Tell the log what could not be applied.

        :param what: what stays as it was.
        """
        self._log.error("{what}: {error}", what=what, error=str(error) or type(error).__name__)


def _read(key: str, endpoint: str, read: Callable[[], bool]) -> bool:
    """Read the certificates of an endpoint again.  Blocks.

    :returns: whether the endpoint has any.
    :raises ConfigurationError: if others may read the key, or replace a file.
    """
    for mistake in secrecy.of_endpoint(key, endpoint):
        raise ConfigurationError(str(mistake))
    return read()


def _contents(config: Settings) -> _Contents:
    """Return what is in the files that plugins rely on, such as authorities.  Blocks.

    Those of backends are left out: none takes new settings, and the start waits for no disk of one.
    """
    return {
        place: [_digest(path) for path in private.paths(each.options, Kept.TRUSTED)]
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

    :param listening: where the daemon listens.  What is wrong with a certificate there has been
        told, and must not keep a token valid.
    :raises ConfigurationError: if the file has a mistake, or others may read a secret.
    """
    config = settings.load(file, listening)
    found = [*secrecy.of_files(config), *private.check_options(config.identity.options)]
    if fatal := [f"{file}: {each}" for each in found if each.fatal]:
        raise ConfigurationError("\n".join(fatal))
    return config, _contents(config)


def _differing(before: Settings, after: Settings) -> list[str]:
    """Return the names of the tables, but the plugins' own, that differ."""
    left_out = _PLUGINS | _OF_THE_FILE
    names = [each.name for each in attrs.fields(Settings) if each.name not in left_out]
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _only_options_differ(before: PluginSettings | None, after: PluginSettings | None) -> bool:
    """Tell whether two tables configure one plugin, and differ in the plugin's own keys alone."""
    if before is None or after is None:
        return False
    return attrs.evolve(before, options=after.options) == after


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
