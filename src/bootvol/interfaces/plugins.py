"""Plugins of any kind: their descriptors, and what each may provide and is lent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from pydantic import BaseModel
from zope.interface import Interface

from bootvol.checks import Mistake
from bootvol.interfaces.backends import (
    IBlockBackend,
)
from bootvol.interfaces.hypervisors import IHypervisor
from bootvol.interfaces.identities import IIdentity
from bootvol.interfaces.sources import (
    IImageSource,
)
from bootvol.jail import Jail
from bootvol.threads import Threads


class IClosable(Interface):
    """What a plugin of any kind provides, too, that holds on to something while the daemon runs."""

    async def close() -> None:
        """Let go of everything: called when the daemon ends, and nothing else is under way.

        It must come to an end whatever the plugin's service does.
        """


class IReloadable(Interface):
    """Optional interface of a plugin of any kind: takes new settings while the daemon runs."""

    async def reload(settings: Any) -> None:
        """Replace the settings.  Runs when the operator sends SIGHUP.

        Failed or cancelled, the plugin goes on with the settings that it had.

        :param settings: an instance of the descriptor's ``settings``.
        :raises bootvol.errors.ConfigurationError: if the new settings cannot be used.
        """


@attrs.frozen
class PluginContext:
    """What the daemon lends to a plugin.

    :ivar reactor: provides IReactorTime, IReactorTCP and IReactorFromThreads, among others.  Its
        seconds are for what lasts: nobody can set them, and they are no time of the calendar.
    :ivar threads: for blocking calls; this plugin's own, so that a call that never returns keeps
        nobody else waiting.
    :ivar name: what the operator calls this instance.
    :ivar jail: confines programs that the plugin runs.
    :ivar now: tells the seconds since 1970, by a clock that may be set at any moment.
    """

    reactor: Any
    threads: Threads
    name: str
    now: Callable[[], float] = time.time
    jail: Jail = attrs.field(factory=Jail)


#: Checks the machine for what an instance of the plugin's ``settings`` names: yields each fault.
#: Blocks; changes nothing; runs before ``factory``, at the start of the daemon and in
#: ``bootvol check-config --machine``.  See :mod:`bootvol.checks`.
Check = Callable[[Any], Iterable[Mistake]]


@attrs.frozen
class SourcePlugin:
    """Describes a kind of image source.  ``factory`` gets an instance of ``settings``.

    ``name``, ``plugin``, ``concurrent`` and ``bandwidth_mib`` of its table are the core's.
    """

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IImageSource]
    check: Check | None = None


@attrs.frozen
class BackendPlugin:
    """Describes a kind of block backend.  ``factory`` gets an instance of ``settings``.

    ``name``, ``plugin`` and ``concurrent`` of its table are the core's.
    """

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IBlockBackend]
    check: Check | None = None


@attrs.frozen
class IdentityPlugin:
    """Describes a kind of identity service.  ``factory`` gets an instance of ``settings``."""

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IIdentity]
    check: Check | None = None


@attrs.frozen
class HypervisorPlugin:
    """Describes a kind of hypervisor.  ``factory`` gets an instance of ``settings``."""

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IHypervisor]
    check: Check | None = None
