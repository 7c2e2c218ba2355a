"""Identity ``embedded``: users, projects and access keys in the configuration.

People and programs log in through bootvol's own identity API; what they get is a signed token.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import IdentityPlugin, IIdentity, PluginContext
from bootvol_plugins.embedded.options import EmbeddedOptions


def _make(options: EmbeddedOptions, context: PluginContext) -> IIdentity:
    from bootvol_plugins.embedded.identity import EmbeddedIdentity

    return EmbeddedIdentity(options, context)


def _check(options: EmbeddedOptions) -> Iterator[Mistake]:
    yield from checks.folder("directory", options.directory)
    if options.key_file is not None:
        yield from checks.file("key_file", options.key_file)
    for n, user in enumerate(options.users):
        if not user.roles:
            fault = "the user has no role in any project, and can do nothing"
            yield Mistake(f"users[{n}].roles", user.name, fault, "Name projects.", fatal=False)


PLUGIN = IdentityPlugin(EmbeddedOptions, _make, _check)
