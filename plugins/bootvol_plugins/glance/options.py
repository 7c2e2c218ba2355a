"""The settings of a glance source."""

from __future__ import annotations

from pydantic import Field, field_validator

from bootvol.options import Options, TrustedFile
from bootvol_plugins.http.urls import Refused, parse
from bootvol_plugins.keystone.options import Access


class GlanceOptions(Options):
    """A table ``[[sources]]`` of this plugin."""

    endpoints: list[str] = Field(min_length=1)
    """URLs of Glance's API, with or without ``/v2``.  If one fails, the source asks the next."""
    keystone: Access
    """Keystone, and bootvol's own user there.  The user may read every image."""
    ca: TrustedFile | None = None
    """A PEM file with Glance's certificate authorities.  The default is the system's."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Longest time in seconds until Glance begins its answer."""
    stall: float = Field(default=60.0, gt=0, le=3600)
    """Longest pause of Glance in seconds, while the source waits for data."""

    @field_validator("endpoints")
    @classmethod
    def _roots(cls, value: list[str]) -> list[str]:
        return [_root(each) for each in value]


def _root(text: str) -> str:
    """Return the URL without ``/`` and ``/v2`` at the end, so that paths can be appended."""
    try:
        url = parse(text)
    except Refused as error:
        raise ValueError(f"{text!r} {error}") from None
    if url.query:
        raise ValueError(f"{text!r} has a query")
    return text.rstrip("/").removesuffix("/v2")
