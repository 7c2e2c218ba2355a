"""Identity ``embedded``: users, projects and access keys in the configuration.

People and programs log in through bootvol's own identity API; what they get is a signed token.
"""

from __future__ import annotations

from bootvol.interfaces import IdentityPlugin, IIdentity, PluginContext
from bootvol_plugins.embedded.options import EmbeddedOptions


def _make(options: EmbeddedOptions, context: PluginContext) -> IIdentity:
    from bootvol_plugins.embedded.identity import EmbeddedIdentity

    return EmbeddedIdentity(options, context)


PLUGIN = IdentityPlugin(EmbeddedOptions, _make)
