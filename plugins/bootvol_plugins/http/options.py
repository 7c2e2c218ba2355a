"""The settings of an http source."""

from __future__ import annotations

import ipaddress
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from bootvol.options import Options, TrustedFile
from bootvol_plugins.http.lists import AUTO, NONE
from bootvol_plugins.http.urls import Refused, parse, parse_proxy

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class HttpOptions(Options):
    """A table ``[[sources]]`` of this plugin."""

    allow: list[str] = Field(min_length=1)
    """URL prefixes; only what lies under one of them is ever asked for, redirects included."""
    networks: list[str] = Field(default=[])
    """CIDRs of the operator's own networks, which names may lead to; otherwise they may only lead
    to what everyone can reach.
    """
    proxy: str | None = None
    """``http://HOST:PORT`` of a proxy that all requests go through."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds that a server may take to begin its answer."""
    stall: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that it may then send nothing, while something is wanted; it may take ten times as
    long for each few MiB.
    """
    ca: TrustedFile | None = None
    """A PEM file of the authorities that https servers are trusted by; without one, the
    system's.
    """
    checksums: str = Field(default=AUTO, pattern=r"^[^/\\\x00-\x1f]+$")
    """The list beside each image that states its digest, which has to be there; ``{image}`` in the
    name stands for the image's.  ``auto`` looks for the usual names, ``none`` for none.
    """
    keyring: TrustedFile | None = None
    """A file of OpenPGP keys, one of which must have signed the list of digests: an image without a
    list that is signed so is refused.
    """

    @field_validator("allow")
    @classmethod
    def _parse(cls, value: list[str]) -> list[str]:
        for prefix in value:
            try:
                parse(prefix)
            except Refused as error:
                raise ValueError(f"{prefix!r} {error}") from None
        return value

    @field_validator("networks")
    @classmethod
    def _parse_networks(cls, value: list[str]) -> list[str]:
        for each in value:
            network = ipaddress.ip_network(each)  # its error names the fault
            if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
                raise ValueError(f"{each!r} is a network of IPv4; write it so")
        return value

    @model_validator(mode="after")
    def _check_keyring(self) -> Self:
        if self.keyring is not None and self.checksums == NONE:
            raise ValueError('keyring is of no use with checksums = "none"')
        return self

    # Validate the whole table, not the key: then the message does not repeat a password in the key.
    @model_validator(mode="after")
    def _parse_proxy(self) -> Self:
        if self.proxy is not None:
            try:
                parse_proxy(self.proxy)
            except Refused as error:
                raise ValueError(f"proxy {error}") from None
        return self
