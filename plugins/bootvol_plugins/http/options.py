"""What the operator says of an http source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from bootvol.options import ConfigPath, Options
from bootvol_plugins.http.urls import Refused, parse


class HttpOptions(Options):
    """``[[sources]]`` of this plugin.

    :ivar allow: URL prefixes; only what lies under one of them is ever asked for, redirects
        included.
    :ivar timeout: seconds that a server may take to begin its answer.
    :ivar stall: seconds that it may then send nothing, while something is wanted.
    :ivar ca: a PEM file of the authorities that https servers are trusted by; without one, the
        system's.
    :ivar checksums: the list beside each image that states its digest; without one, none is known.
    """

    allow: list[str] = Field(min_length=1)
    timeout: float = Field(default=10.0, gt=0, le=600)
    stall: float = Field(default=60.0, gt=0, le=3600)
    ca: ConfigPath | None = None
    checksums: Literal["SHA512SUMS", "SHA256SUMS", "MD5SUMS"] | None = None

    @field_validator("allow")
    @classmethod
    def _parse(cls, value: list[str]) -> list[str]:
        for prefix in value:
            try:
                parse(prefix)
            except Refused as error:
                raise ValueError(f"{prefix!r} {error}") from None
        return value
