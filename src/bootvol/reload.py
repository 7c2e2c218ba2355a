"""Applies changed settings to a running daemon: identities, plugins that allow it, certificates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from bootvol import private, secrecy, settings
from bootvol.errors import BootvolError, ConfigurationError
from bootvol.interfaces import IReloadable
from bootvol.settings import PluginSettings, Settings
from bootvol.threads import Threads

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
    :param threads: where files are read.
    """

    _log = Logger()

    def __init__(
        self,
        config: Settings,
        plugins: Mapping[str, Any],
        certificates: Mapping[str, Callable[[], bool]],
        threads: Threads,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._certificates = certificates
        self._threads = threads
        # What the plugins use by now, by the places of their tables.
        self._used = dict(config.plugins())
        self._lock = DeferredLock()

    def reload(self) -> Deferred[None]:
        """Apply what the configuration file says now; fires when done, and never fails."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> None:
        applied = []
        for endpoint, read in self._certificates.items():
            try:
                if await self._threads.run(read):
                    applied.append(f"the certificates of {endpoint}")
            except Exception as error:
                self._log.error(
                    "the certificates of {endpoint} stay as they were: {error}",
                    endpoint=endpoint,
                    error=error,
                )
        try:
            config = await self._threads.run(_load, self._config.file, self._config.api.listen)
        except BootvolError as error:
            self._log.error("the settings stay as they were: {error}", error=error)
        else:
            applied += await self._apply(config)
        self._log.info("applied: {applied}", applied=", ".join(applied) or "nothing new")

    async def _apply(self, config: Settings) -> list[str]:
        applied = []
        later = _differing(self._config, config)
        found = dict(config.plugins())
        for place in sorted(self._used.keys() | found.keys()):
            before, after = self._used.get(place), found.get(place)
            if before == after:
                continue
            plugin = self._plugins.get(place)
            if not _only_options_differ(before, after) or not IReloadable.providedBy(plugin):
                later.append(place)
                continue
            assert after is not None  # noqa: S101 - for mypy
            try:
                await IReloadable(plugin).reload(after.options)
            except BootvolError as error:
                self._log.error("{place} stays as it was: {error}", place=place, error=error)
            else:
                self._used[place] = after
                applied.append(place)
        if later:
            self._log.warn("changed, and applied by a restart only: {later}", later=_list(later))
        return applied


def _load(file: Path, listening: Collection[str]) -> Settings:
    """Read the configuration file again.  Blocks.

    :param listening: where the daemon listens.  What is wrong with a certificate there has been
        told, and must not keep a token valid.
    :raises ConfigurationError: if the file has a mistake, or others may read a secret.
    """
    config = settings.load(file, listening)
    found = [*secrecy.of_files(config), *private.check_options(config.identity.options)]
    if fatal := [f"{file}: {each}" for each in found if each.fatal]:
        raise ConfigurationError("\n".join(fatal))
    return config


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
