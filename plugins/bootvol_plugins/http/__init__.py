"""Source ``http``: images at URLs that the operator allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import IImageSource, PluginContext, SourcePlugin
from bootvol_plugins.http.options import HttpOptions


def _make(options: HttpOptions, context: PluginContext) -> IImageSource:
    from bootvol_plugins.http.source import HttpSource  # late: treq is slow to import

    return HttpSource(context.name, options, context.reactor, context.threads, context.jail)


def _check(options: HttpOptions) -> Iterator[Mistake]:
    if options.ca is not None:
        yield from checks.authorities("ca", options.ca)
    if options.keyring is not None:
        yield from checks.program("keyring", "gpgv", "gpgv")
        yield from _check_keyring(options.keyring)


def _check_keyring(path: Path) -> Iterator[Mistake]:
    from bootvol_plugins.http.signatures import keys_in

    try:
        keys_in(path)
        return
    except OSError as error:
        fault = f"the file cannot be read: {error.strerror}"
    except ValueError as error:
        fault = str(error)
    yield Mistake("keyring", path, fault, "Name a file that `gpg --export` has written.")


PLUGIN = SourcePlugin(HttpOptions, _make, _check)
