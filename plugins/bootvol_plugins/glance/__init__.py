"""Source ``glance``: the images of OpenStack's image service."""

from __future__ import annotations

from typing import Any

from bootvol.interfaces import IImageSource, PluginContext, SourcePlugin
from bootvol_plugins.glance.options import GlanceOptions


def _make(options: Any, context: PluginContext) -> IImageSource:
    from bootvol_plugins.glance.source import make  # late: treq is slow to import

    return make(context.name, options, context.reactor)


PLUGIN = SourcePlugin(GlanceOptions, _make)
