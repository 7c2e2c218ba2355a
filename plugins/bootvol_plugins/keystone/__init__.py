"""Identity ``keystone``: OpenStack's identity service finds the caller of a token."""

from __future__ import annotations

from collections.abc import Iterator

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import IdentityPlugin, IIdentity, PluginContext
from bootvol_plugins.keystone.options import KeystoneOptions


def _make(options: KeystoneOptions, context: PluginContext) -> IIdentity:
    from bootvol_plugins.keystone.identity import KeystoneIdentity  # Late: treq imports slowly.

    return KeystoneIdentity(options, context.reactor)


def _check(options: KeystoneOptions) -> Iterator[Mistake]:
    if options.ca is not None:
        yield from checks.authorities("ca", options.ca)


PLUGIN = IdentityPlugin(KeystoneOptions, _make, _check)
