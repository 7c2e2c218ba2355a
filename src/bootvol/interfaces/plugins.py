"""Descriptors, context and common interfaces of plugins of all kinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

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
from bootvol.reactors import IReactor
from bootvol.threads import Threads


class IClosable(Interface):
    """Optional interface of a plugin of any kind that holds resources while the daemon runs."""

    async def close() -> None:
        """Release all resources.  The core calls this method when the daemon ends.

        No other call runs at that time.  The call must end, even if the plugin's service hangs or
        fails.
        """


class IReloadable(Interface):
    """Optional interface of a plugin of any kind that takes new settings while the daemon runs."""

    async def reload(settings: Any) -> None:
        """Replace the settings.  The core calls this method when the operator sends SIGHUP.

        After a failed or cancelled call, the plugin keeps its former settings.

        :param settings: an instance of the descriptor's ``settings``.
        :raises bootvol.errors.ConfigurationError: if the plugin cannot use the new settings.
        """


@attrs.frozen
class PluginContext:
    """The daemon's services for one plugin instance.

    :ivar reactor: the reactor.  Use its ``seconds()`` for durations: nobody can set this clock.
        Its seconds are not calendar time.
    :ivar threads: runs blocking calls, in threads of this plugin alone.  So a call that never
        returns delays no other plugin.
    :ivar name: the operator's name for this instance.
    :ivar jail: confines the programs that the plugin runs.
    :ivar now: returns the seconds since 1970.  This clock may be set at any moment.
    """

    reactor: IReactor
    threads: Threads
    name: str
    now: Callable[[], float] = time.time
    jail: Jail = attrs.field(factory=Jail)


SettingsT = TypeVar("SettingsT", bound=BaseModel)
MadeT = TypeVar("MadeT")

#: Checks the machine against an instance of a plugin's settings, and yields each fault.  Blocks.
#: Changes nothing.  Runs before the factory: when the daemon starts, and in ``bootvol check-config
#: --machine``.  See :mod:`bootvol.checks`.
Check: TypeAlias = Callable[[SettingsT], Iterable[Mistake]]


@attrs.frozen
class Plugin(Generic[SettingsT, MadeT]):
    """The descriptor of a kind of plugin.

    :ivar settings: the model of the plugin's table in the configuration.
    :ivar factory: makes the plugin's object from an instance of ``settings``.
    :ivar check: see :data:`Check`.
    """

    settings: type[SettingsT]
    factory: Callable[[SettingsT, PluginContext], MadeT]
    check: Check[SettingsT] | None = None


@attrs.frozen
class SourcePlugin(Plugin[SettingsT, IImageSource]):
    """The descriptor of a kind of image source.

    The core reads the keys ``name``, ``plugin``, ``concurrent`` and ``bandwidth_mib`` of the table.
    """


@attrs.frozen
class BackendPlugin(Plugin[SettingsT, IBlockBackend]):
    """The descriptor of a kind of block backend.

    The core reads the keys ``name``, ``plugin`` and ``concurrent`` of the table.

    :ivar store: returns the identity of the store that an instance of ``settings`` leads to, for
        ``check-config``; None if that store has no identity yet.  The function blocks, changes
        nothing, and raises OSError if the store cannot be looked at.
    """

    store: Callable[[SettingsT], str | None] | None = None


@attrs.frozen
class IdentityPlugin(Plugin[SettingsT, IIdentity]):
    """The descriptor of a kind of identity.

    :ivar roles: returns the roles that an instance of ``settings`` grants, each after its key; None
        if another service grants the roles.  bootvol warns of a role unknown to ``[policy]``.
    :ivar log_ins: returns the users of an instance of ``settings`` who log in at bootvol itself by
        a password, each with the names of the user's projects; None if nobody logs in there.
    """

    roles: Callable[[SettingsT], Iterable[tuple[str, str]]] | None = None
    log_ins: Callable[[SettingsT], Mapping[str, Sequence[str]]] | None = None


@attrs.frozen
class HypervisorPlugin(Plugin[SettingsT, IHypervisor]):
    """The descriptor of a kind of hypervisor."""
