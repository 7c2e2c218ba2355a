"""Source ``glance``: the images of OpenStack's image service."""

from __future__ import annotations

from collections.abc import Iterator

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import IImageSource, PluginContext, SourcePlugin
from bootvol_plugins.glance.options import GlanceOptions


def _make(options: GlanceOptions, context: PluginContext) -> IImageSource:
    from bootvol_plugins.glance.source import make  # late: treq is slow to import

    return make(context.name, options, context.reactor)


def _check(options: GlanceOptions) -> Iterator[Mistake]:
    for key, path in (("ca", options.ca), ("keystone.ca", options.keystone.ca)):
        if path is not None:
            yield from checks.authorities(key, path)


PLUGIN = SourcePlugin(GlanceOptions, _make, _check)
