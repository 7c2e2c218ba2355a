"""Models of the core's own tables in the configuration file.  twistd.conf explains every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bootvol.jail import FIRST_USER, USERS, Jail
from bootvol.options import (
    LISTENING,
    ClosedFolder,
    CredentialsFolder,
    Options,
    OwnFolder,
    Text,
)

#: A name or address, a port, and a path: no user, no query, no fragment.
_PUBLIC_URL: Final = re.compile(r"https?://[^/?#@]+(?:/[^?#]*[^/?#])?")
#: Addresses to listen at, and not to connect to.
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - refused
_VISIBLE: Final = re.compile(r"[!-~]+")
#: The upper bound is the largest limit that the API accepts.
QuotaLimit = Annotated[int, Field(ge=-1, le=2**31 - 1)]
#: A number of concurrent imports, at least 1.
Concurrent = Annotated[int, Field(ge=1, strict=True)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: MiB per second.
MibPerSecond = Annotated[float, Field(gt=0, le=2**20, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Api(Options):
    """The table ``[api]``: the endpoints, the connections, and the API's public URL."""

    listen: list[str] = Field(default=["tcp:8776:interface=127.0.0.1"], min_length=1)
    connections: Annotated[int, Field(ge=1)] = 500
    public_url: str | None = None

    @field_validator("public_url")
    @classmethod
    def _is_a_root(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not (_PUBLIC_URL.fullmatch(value) and _VISIBLE.fullmatch(value)):
            raise ValueError(
                "this is not an http or https URL of the required form: without user, query,"
                " fragment, and slash at the end"
            )
        try:
            parsed = urlsplit(value)
            # Read the attribute: a wrong port raises ValueError.
            named = parsed.hostname not in {None, *_EVERYWHERE} and parsed.port != 0
        except ValueError as error:
            raise ValueError(f"this is not a URL: {error}") from None
        if not named:
            raise ValueError(
                "this URL names no host that clients can connect to, or an impossible port"
            )
        return value

    @field_validator("listen")
    @classmethod
    def _parses(cls, value: list[str], info: ValidationInfo) -> list[str]:
        # Import late: most users of a configuration need no reactor.
        from twisted.internet import reactor

        from bootvol import endpoints

        known = (info.context or {}).get(LISTENING, ())
        for description in value:
            if description in known:
                continue
            try:
                endpoints.parse(reactor, description)
            except ValueError as error:
                raise ValueError(
                    f"{description!r} is no Twisted server endpoint: {error}"
                ) from None
        return value


class State(Options):
    """The table ``[state]``: the database, and the folder for the daemon's other state."""

    url: str = "sqlite:///var/bootvol.db"
    directory: OwnFolder = Field(default=Path("var"), validate_default=True)
    host: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")] | None = None
    """Name of the daemon's host, for daemons that reach the same disks; None for a name of the
    daemon alone, which stays in ``directory``.
    """

    @field_validator("url")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            backend = make_url(value).get_backend_name()
        except (ArgumentError, ValueError):
            raise ValueError("this is not a database URL") from None
        if "\0" in value:
            raise ValueError("this is not a database URL")
        url = make_url(value)
        if backend not in {"sqlite", "postgresql"} or not url.database:
            raise ValueError("the database must be sqlite:///PATH or postgresql://HOST/NAME")
        if backend == "sqlite" and url.query:
            raise ValueError("the URL of an SQLite database takes no query: remove the `?…` part")
        return value


class QuotaTable(Options):
    """The table ``[quota]``: the limits of one tenant; -1 for no limit."""

    volumes: QuotaLimit = 10
    gigabytes: QuotaLimit = 1000
    snapshots: QuotaLimit = 10
    instances: QuotaLimit = 10
    key_pairs: QuotaLimit = 100
    """Limit for each user of the tenant."""
    per_volume_gigabytes: QuotaLimit = -1
    """Limit of the size of each volume in GiB."""
    snapshots_in_gigabytes: bool = True
    """Whether snapshots count in ``gigabytes``, as in Cinder."""


class RateLimitTable(Options):
    """A table ``[[rate_limits]]``: how often a tenant may call, in Nova's form."""

    verb: Literal["GET", "POST", "PUT", "DELETE"]
    uri: Text = "*"
    regex: str = ".*"
    value: int = Field(ge=1, le=2**31 - 1)
    unit: Literal["SECOND", "MINUTE", "HOUR", "DAY"]

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from None
        return value


class FlavorTable(Options):
    """A table ``[[flavors]]``: a size of servers."""

    id: Name
    name: Text
    ram: int = Field(ge=16, le=2**20)
    cpus: int = Field(default=1, ge=1, le=64)


#: The default flavors, from HP.
FLAVORS: Final = (
    FlavorTable(id="100", name="standard.xsmall", ram=1024),
    FlavorTable(id="101", name="standard.small", ram=2048, cpus=2),
    FlavorTable(id="102", name="standard.medium", ram=4096, cpus=2),
)


class Imports(Options):
    """The table ``[imports]``: the limits of imports, and their memory."""

    concurrent: int = Field(default=4, ge=1, le=64)
    least_kib: int = Field(default=64, ge=0, le=2**20)
    bandwidth_mib: MibPerSecond | None = None
    buffers: int = Field(default=4, ge=2, le=64)
    buffer_kib: int = Field(default=2048, ge=64, le=32768, multiple_of=64)
    checkpoint_mib: int = Field(default=64, ge=1, le=65536)
    retries: int = Field(default=8, ge=0, le=1000)
    strict_images: bool = False
    verify: Literal["stream", "read-back"] = "stream"
    spool: OwnFolder = Field(default=Path("var/spool"), validate_default=True)
    spool_gib: Annotated[float, Field(gt=0, le=2**20, strict=True)] | None = None
    converter_mib: int = Field(default=1024, ge=256, le=65536)


class SandboxTable(Options):
    """The table ``[sandbox]``: how QEMU and its tools are confined to their disks.

    :ivar required: whether to refuse to run programs that cannot be confined.
    :ivar first_user: see :data:`bootvol.jail.FIRST_USER`.
    :ivar programs: further folders of QEMU, in addition to the system's.
    """

    required: bool = True
    first_user: int = Field(default=FIRST_USER, ge=1, le=2**32 - 2 - USERS, strict=True)
    programs: list[OwnFolder] = Field(default_factory=list)

    @property
    def jail(self) -> Jail:
        """The jail with these settings."""
        return Jail(self.required, self.first_user, tuple(self.programs))


class ExportsTable(Options):
    """The table ``[exports]``: how hypervisors reach volumes that they cannot open in place.

    :ivar by: ``unix`` for sockets in ``directory``.
    :ivar directory: folder for the state of the exports.
    """

    by: Literal["unix", "tls"]
    directory: ClosedFolder = Field(default=Path("var/exports"), validate_default=True)


class TlsExportsTable(ExportsTable):
    """The table ``[exports]`` with ``by = "tls"``.

    :ivar host: name or address to listen at.  Clients verify the server by this name.
    :ivar ports: the first and the last port.
    """

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    ports: list[Port] = Field(default=[10809, 11808], min_length=2, max_length=2)
    credentials: CredentialsFolder

    @field_validator("host")
    @classmethod
    def _leads_here(cls, value: str) -> str:
        if value in _EVERYWHERE:
            raise ValueError("clients cannot connect to this; name one address of this machine")
        return value

    @field_validator("ports")
    @classmethod
    def _in_order(cls, value: list[int]) -> list[int]:
        if value != sorted(value):
            raise ValueError("the first port must not be greater than the last port")
        return value
