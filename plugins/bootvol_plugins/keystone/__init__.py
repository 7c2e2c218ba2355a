"""Identity ``keystone``: OpenStack's identity service says whom a token speaks for."""

from __future__ import annotations

from typing import Any

from bootvol.interfaces import IdentityPlugin, IIdentity, PluginContext
from bootvol_plugins.keystone.options import KeystoneOptions


def _make(options: Any, context: PluginContext) -> IIdentity:
    from bootvol_plugins.keystone.identity import KeystoneIdentity  # late: treq is slow to import

    return KeystoneIdentity(options, context.reactor)


PLUGIN = IdentityPlugin(KeystoneOptions, _make)
