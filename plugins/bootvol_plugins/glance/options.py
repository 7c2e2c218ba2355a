"""What the operator says of a glance source."""

from __future__ import annotations

from pydantic import Field, field_validator

from bootvol.options import ConfigPath, Options, Secret
from bootvol_plugins.http.urls import Refused, parse


class GlanceOptions(Options):
    """``[[sources]]`` of this plugin.

    :ivar endpoints: URLs of Glance's API, without the version; the next is asked when one fails.
    :ivar auth_url: the URL of Keystone's API, with ``/v3``.
    :ivar username: bootvol's own user, who may read every image that is to be imported.
    :ivar password: that user's.
    :ivar project: that the user has a role in.
    :ivar ca: a PEM file of the authorities that https servers are trusted by; without one, the
        system's.
    :ivar timeout: seconds that a server may take to begin its answer.
    :ivar stall: seconds that it may then send nothing, while something is wanted.
    """

    endpoints: list[str] = Field(min_length=1)
    auth_url: str
    username: str = Field(min_length=1)
    password: Secret
    project: str = Field(default="service", min_length=1)
    user_domain: str = Field(default="Default", min_length=1)
    project_domain: str = Field(default="Default", min_length=1)
    ca: ConfigPath | None = None
    timeout: float = Field(default=10.0, gt=0, le=600)
    stall: float = Field(default=60.0, gt=0, le=3600)

    @field_validator("endpoints")
    @classmethod
    def _roots(cls, value: list[str]) -> list[str]:
        return [_root(each) for each in value]

    @field_validator("auth_url")
    @classmethod
    def _keystone(cls, value: str) -> str:
        return _root(value)


def _root(text: str) -> str:
    """Return a URL that paths can be put behind."""
    try:
        url = parse(text)
    except Refused as error:
        raise ValueError(f"{text!r} {error}") from None
    if url.query:
        raise ValueError(f"{text!r} has a query")
    return text.rstrip("/")
