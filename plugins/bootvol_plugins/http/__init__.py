"""Source ``http``: images at URLs that the operator allows."""

from __future__ import annotations

from collections.abc import Iterator

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import IImageSource, PluginContext, SourcePlugin
from bootvol_plugins.http.options import HttpOptions


def _make(options: HttpOptions, context: PluginContext) -> IImageSource:
    from bootvol_plugins.http.source import HttpSource  # late: treq is slow to import

    return HttpSource(context.name, options, context.reactor, context.threads)


def _check(options: HttpOptions) -> Iterator[Mistake]:
    if options.ca is not None:
        yield from checks.authorities("ca", options.ca)
    if options.keyring is not None:
        yield from checks.program("keyring", "gpgv", "gpgv")
        yield from checks.file("keyring", options.keyring)


PLUGIN = SourcePlugin(HttpOptions, _make, _check)
