"""Finds plugins by entry point, and checks their objects against the interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel
from zope.interface import Interface
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from bootvol.errors import ConfigurationError, DefectivePlugin
from bootvol.interfaces import (
    BackendPlugin,
    HypervisorPlugin,
    IBlockBackend,
    IdentityPlugin,
    IHypervisor,
    IIdentifiedBackend,
    IIdentity,
    IImageSource,
    Plugin,
    PluginContext,
    SourcePlugin,
)

#: The descriptor of any plugin, with any settings.
AnyPlugin: TypeAlias = Plugin[Any, Any]
Descriptor = TypeVar("Descriptor", bound=AnyPlugin)
SettingsT = TypeVar("SettingsT", bound=BaseModel)
MadeT = TypeVar("MadeT")

_GROUPS: Final[dict[type[AnyPlugin], str]] = {
    SourcePlugin: "bootvol.sources",
    BackendPlugin: "bootvol.backends",
    IdentityPlugin: "bootvol.identities",
    HypervisorPlugin: "bootvol.hypervisors",
}
_INTERFACES: Final[dict[type[AnyPlugin], type[Interface]]] = {
    SourcePlugin: IImageSource,
    BackendPlugin: IBlockBackend,
    IdentityPlugin: IIdentity,
    HypervisorPlugin: IHypervisor,
}


def names(kind: type[Descriptor]) -> list[str]:
    """Return the names of the installed plugins of one kind, sorted."""
    return sorted(point.name for point in entry_points(group=_GROUPS[kind]))


def found() -> Iterator[tuple[type[AnyPlugin], EntryPoint]]:
    """Yield the descriptor class and the entry point of every installed plugin, sorted."""
    for kind, group in _GROUPS.items():
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            yield kind, point


def load(kind: type[Descriptor], name: str) -> Descriptor:
    """Return the descriptor of the plugin called ``name``, without loading its driver.

    :raises ConfigurationError: if no such plugin is installed.
    :raises DefectivePlugin: if the plugin cannot be imported, or its entry point is not a
        descriptor of this kind.
    """
    found = list(entry_points(group=_GROUPS[kind], name=name))
    if not found:
        known = ", ".join(names(kind)) or "none"
        raise ConfigurationError(f"the plugin is not installed; installed plugins: {known}")
    try:
        descriptor = found[0].load()
    except Exception as error:
        raise DefectivePlugin(f"plugin {name!r} cannot be imported: {error}") from error
    if not isinstance(descriptor, kind):
        raise DefectivePlugin(f"plugin {name!r}: {found[0].value} is not a {kind.__name__}")
    return descriptor


#: Seconds that a backend, or the check of any plugin, may take when the daemon starts.
PATIENCE: Final = 10.0


def build(
    descriptor: Plugin[SettingsT, MadeT], settings: SettingsT, context: PluginContext
) -> MadeT:
    """Create the plugin's object, and check its interface.

    :raises DefectivePlugin: if the object lacks a part of its interface.
    """
    made = descriptor.factory(settings, context)
    try:
        verifyObject(_INTERFACES[type(descriptor)], made)
    except Invalid as error:
        raise DefectivePlugin(f"plugin {context.name!r} is incomplete: {error}") from error
    return made


def build_backend(
    descriptor: BackendPlugin[SettingsT],
    settings: SettingsT,
    context: PluginContext,
    identity: str | None,
) -> IBlockBackend:
    """Create a backend's object, bound to the store of its volumes.  Blocks.

    :param identity: identity of the store, if the core remembers one: see
        :class:`bootvol.interfaces.IIdentifiedBackend`.
    :raises ConfigurationError: if the backend cannot be used, or has another store.
    """
    made = build(descriptor, settings, context)
    if identity is not None and IIdentifiedBackend.providedBy(made):
        IIdentifiedBackend(made).expect(identity)
    return made
