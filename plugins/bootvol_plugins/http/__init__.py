"""Source ``http``: images that a URL leads to, where the operator allows it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from bootvol.interfaces import IImageSource, PluginContext, SourcePlugin
from bootvol.options import Options
from bootvol_plugins.http.urls import Refused, parse


class HttpOptions(Options):
    """``[[sources]]`` of this plugin.

    :ivar allow: URL prefixes; only what lies under one of them is ever asked for, redirects
        included.
    :ivar timeout: seconds that a server may take to begin its answer.
    :ivar stall: seconds that it may then send nothing, while something is wanted.
    """

    allow: list[str] = Field(min_length=1)
    timeout: float = Field(default=10.0, gt=0, le=600)
    stall: float = Field(default=60.0, gt=0, le=3600)

    @field_validator("allow")
    @classmethod
    def _parse(cls, value: list[str]) -> list[str]:
        for prefix in value:
            try:
                parse(prefix)
            except Refused as error:
                raise ValueError(f"{prefix!r} {error}") from None
        return value


def _make(options: Any, context: PluginContext) -> IImageSource:
    from bootvol_plugins.http.source import HttpSource  # late: treq is slow to import

    return HttpSource(context.name, options.allow, options.timeout, options.stall, context.reactor)


PLUGIN = SourcePlugin(HttpOptions, _make)
