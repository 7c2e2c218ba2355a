"""Identity ``embedded``: users, projects and access keys in the configuration.

People and programs log in through bootvol's own identity API, and get a signed token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bootvol import checks, private
from bootvol.checks import Mistake
from bootvol.interfaces import IdentityPlugin, IIdentity, PluginContext
from bootvol.private import Kept
from bootvol_plugins.embedded.options import EmbeddedOptions


def _make(options: EmbeddedOptions, context: PluginContext) -> IIdentity:
    from bootvol_plugins.embedded.identity import EmbeddedIdentity

    return EmbeddedIdentity(options, context)


def _check(options: EmbeddedOptions) -> Iterator[Mistake]:
    yield from checks.folder("directory", options.directory)
    yield from _key(options)
    for n, user in enumerate(options.users):
        if not user.roles:
            fault = "the user has no role in any project, and can do nothing"
            yield Mistake(f"users[{n}].roles", user.name, fault, "Name projects.", fatal=False)


def _key(options: EmbeddedOptions) -> Iterator[Mistake]:
    from bootvol_plugins.embedded.key import KEY_BYTES, key_path

    key = "directory" if options.key_file is None else "key_file"
    path = key_path(options.directory, options.key_file)
    if options.key_file is None and not path.exists():
        return
    found = list(checks.file(key, path))
    yield from found
    if found:
        return
    status = path.stat()
    if status.st_size < KEY_BYTES:
        fault = f"the key has {status.st_size} bytes; at least {KEY_BYTES} are needed"
        remedy = f"Make one: head -c {KEY_BYTES} /dev/urandom, with an umask of 077."
        yield Mistake(key, path, fault, remedy)
    if options.key_file is None:
        yield from private.check(key, path, Kept.SECRET)


def _roles(options: EmbeddedOptions) -> Iterator[tuple[str, str]]:
    for n, user in enumerate(options.users):
        for project, roles in user.roles.items():
            for role in roles:
                yield f"users[{n}].roles.{project}", role


def _log_ins(options: EmbeddedOptions) -> Mapping[str, Sequence[str]]:
    return {each.name: list(each.roles) for each in options.users if each.password_hash}


PLUGIN = IdentityPlugin(EmbeddedOptions, _make, _check, _roles, _log_ins)
