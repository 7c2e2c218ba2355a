"""The settings of an http source."""

from __future__ import annotations

import ipaddress
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from bootvol.options import Options, TrustedFile
from bootvol_plugins.http.checksums import ALGORITHMS, is_of_another_algorithm
from bootvol_plugins.http.lists import AUTO, IMAGE, NONE
from bootvol_plugins.http.urls import Refused, lies_under, parse, parse_proxy

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class HttpOptions(Options):
    """A table ``[[sources]]`` of this plugin."""

    allow: list[str] = Field(min_length=1)
    """URL prefixes.  The source requests only URLs below one of them, also after redirects."""
    networks: list[str] = Field(default=[])
    """Private networks, as CIDRs, that host names may resolve to.  Other names must resolve to
    public addresses.
    """
    proxy: str | None = None
    """The proxy for all requests, as ``http://HOST:PORT``."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Longest time in seconds until a server begins its answer."""
    stall: float = Field(default=60.0, gt=0, le=3600)
    """Longest pause of a server in seconds, while the source waits for data.  Each few MiB may take
    ten times as long.
    """
    connections: int = Field(default=4, ge=1, le=16)
    """Most connections for one image.  The source uses more than one while that is clearly faster.
    """
    mirrors: dict[str, list[str]] = Field(default={})
    """Other URLs with the same files as below a URL.  If a server fails, the source reads the image
    from another one.  All URLs must lie below those in ``allow``.
    """
    ca: TrustedFile | None = None
    """A PEM file with the certificate authorities of https servers.  The default is the system's
    authorities.
    """
    checksums: str = Field(default=AUTO, pattern=r"^[^/\\\x00-\x1f]+$")
    """The file beside each image with the image's digest.  ``{image}`` stands for the image's file
    name.  An image without this file is refused.  ``auto`` looks for the usual names, and accepts
    images without a list.  ``none`` looks for no list.
    """
    keyring: TrustedFile | None = None
    """A file of OpenPGP keys.  One of the keys must have signed the list of digests.  An image
    without such a list is refused.
    """

    @field_validator("allow")
    @classmethod
    def _parse(cls, value: list[str]) -> list[str]:
        for prefix in value:
            try:
                url = parse(prefix)
            except Refused as error:
                raise ValueError(f"{prefix!r} {error}") from None
            if url.query:
                raise ValueError(f"{prefix!r} has a query, which would not limit the requests")
        return value

    @field_validator("networks")
    @classmethod
    def _parse_networks(cls, value: list[str]) -> list[str]:
        for each in value:
            network = ipaddress.ip_network(each)  # its error names the fault
            if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
                raise ValueError(f"{each!r} is an IPv4 network: write the network in IPv4 form")
        return value

    @field_validator("checksums")
    @classmethod
    def _names_a_list(cls, value: str) -> str:
        if value.lower() in {AUTO, NONE} and value != value.lower():
            raise ValueError(f'write "{value.lower()}" in lower case')
        if set("{}") & set(value.replace(IMAGE, "")):
            raise ValueError(f"the only placeholder is {IMAGE}, for the image's file name")
        if value != value.strip() or value in {".", ".."}:
            raise ValueError("this is not the name of a file")
        if is_of_another_algorithm(value):
            known = ", ".join(ALGORITHMS)
            raise ValueError(f"bootvol does not compute such digests; name a list with {known}")
        return value

    @model_validator(mode="after")
    def _check_mirrors(self) -> Self:
        allow = [parse(prefix) for prefix in self.allow]
        for each in (*self.mirrors, *(each for others in self.mirrors.values() for each in others)):
            try:
                url = parse(each)
            except Refused as error:
                raise ValueError(f"mirrors: {each!r} {error}") from None
            if url.query:
                raise ValueError(f"mirrors: {each!r} has a query")
            if not lies_under(url, allow):
                raise ValueError(f"mirrors: {each!r} does not lie below a URL in allow")
        return self

    @model_validator(mode="after")
    def _check_keyring(self) -> Self:
        if self.keyring is not None and self.checksums == NONE:
            raise ValueError('keyring needs a list of digests, so remove checksums = "none"')
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
