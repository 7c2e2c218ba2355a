"""The configuration file: TOML in, typed settings out.

A mistake names the file, the table and key, the value, and what to do about it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from bootvol import contradictions, plugins
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, HypervisorPlugin, IdentityPlugin, SourcePlugin
from bootvol.options import ConfigPath, Options
from bootvol.policy import Policy
from bootvol.validation import validate

Limit = Annotated[int, Field(ge=-1)]
#: At least one at once.
Concurrent = Annotated[int, Field(ge=1, strict=True)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: MiB per second.
Bandwidth = Annotated[float, Field(gt=0, le=2**20, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Api(Options):
    """``[api]``: where the API listens (Twisted endpoint descriptions) and is reached."""

    listen: list[str] = Field(default=["tcp:8776:interface=127.0.0.1"], min_length=1)
    connections: Annotated[int, Field(ge=1)] = 500
    public_url: str | None = Field(default=None, pattern=r"^https?://[!-~]*[!-.0-~]$")

    @field_validator("listen")
    @classmethod
    def _parses(cls, value: list[str]) -> list[str]:
        # Late: most readers of a configuration want no reactor.
        from twisted.internet import reactor
        from twisted.internet.endpoints import serverFromString

        for description in value:
            try:
                serverFromString(reactor, description)
            except Exception as error:
                raise ValueError(
                    f"{description!r} is no Twisted server endpoint: {error}"
                ) from None
        return value


class State(Options):
    """``[state]``: the database, and the folder for what else the daemon must remember."""

    url: str = "sqlite:///var/bootvol.db"
    directory: ConfigPath = Field(default=Path("var"), validate_default=True)

    @field_validator("url")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            backend = make_url(value).get_backend_name()
        except ArgumentError:
            raise ValueError("this is not a database URL") from None
        if backend not in {"sqlite", "postgresql"} or not make_url(value).database:
            raise ValueError("the database is either sqlite:///PATH or postgresql://HOST/NAME")
        return value


class Quota(Options):
    """``[quota]``: what one tenant may have; -1 is no limit."""

    volumes: Limit = 10
    gigabytes: Limit = 1000
    snapshots: Limit = 10
    instances: Limit = 10


class RateLimitTable(Options):
    """``[[rate_limits]]``: how often a tenant may call, in Nova's form."""

    verb: Literal["GET", "POST", "PUT", "DELETE"]
    uri: str = Field(default="*", min_length=1, max_length=255)
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
    """``[[flavors]]``: how large a server may be."""

    id: Name
    name: str = Field(min_length=1, max_length=255)
    ram: int = Field(ge=16, le=2**20)
    cpus: int = Field(default=1, ge=1, le=64)


#: Some of HP's own, where the operator names none.
_FLAVORS: Final = (
    FlavorTable(id="100", name="standard.xsmall", ram=1024),
    FlavorTable(id="101", name="standard.small", ram=2048, cpus=2),
    FlavorTable(id="102", name="standard.medium", ram=4096, cpus=2),
)


class Imports(Options):
    """``[imports]``: how much is done at once, and with how much memory."""

    concurrent: int = Field(default=4, ge=1, le=64)
    bandwidth_mib: Bandwidth | None = None
    buffers: int = Field(default=4, ge=2, le=64)
    buffer_kib: int = Field(default=2048, ge=64, le=32768, multiple_of=64)
    checkpoint_mib: int = Field(default=64, ge=1, le=65536)
    retries: int = Field(default=8, ge=0, le=1000)
    verify: Literal["stream", "read-back"] = "stream"
    spool: ConfigPath = Field(default=Path("var/spool"), validate_default=True)
    spool_gib: Annotated[float, Field(gt=0, le=2**20, strict=True)] | None = None
    converter_mib: int = Field(default=1024, ge=256, le=65536)


class Exports(Options):
    """``[exports]``: how hypervisors reach volumes that they cannot open where they lie.

    :ivar by: ``unix`` is by sockets in ``directory``.
    :ivar directory: what there is of exports is kept there.
    """

    by: Literal["unix", "tls"]
    directory: ConfigPath = Field(default=Path("var/exports"), validate_default=True)


class TlsExports(Exports):
    """The same where ``by`` is ``tls``.

    :ivar host: the name or address to listen at, and by which clients know the server.
    :ivar ports: the first and the last one.
    """

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    ports: list[Port] = Field(default=[10809, 11808], min_length=2, max_length=2)
    credentials: ConfigPath

    @field_validator("host")
    @classmethod
    def _leads_here(cls, value: str) -> str:
        if value in {"0.0.0.0", "::"}:  # noqa: S104 - refused
            raise ValueError("nobody can connect to that; name the one address to listen at")
        return value

    @field_validator("ports")
    @classmethod
    def _in_order(cls, value: list[int]) -> list[int]:
        if value != sorted(value):
            raise ValueError("the first port comes after the last one")
        return value


@attrs.frozen
class PluginSettings:
    """One configured plugin: what the operator calls it, its kind, its limits, its own settings.

    :ivar concurrent: how many imports of it a daemon runs at once; None is no limit of its own.
    :ivar bandwidth_mib: MiB per second that a daemon takes from it; None as above.
    :ivar cache_gib: GiB that golden volumes may take of it; None is what suits the backend.
    """

    name: str
    descriptor: SourcePlugin | BackendPlugin | IdentityPlugin | HypervisorPlugin
    options: BaseModel
    concurrent: int | None = None
    bandwidth_mib: float | None = None
    cache_gib: int | None = None


class _Table(BaseModel):
    """What the core reads of a plugin's table; the rest is the plugin's own."""

    name: Name
    plugin: str


class _BackendTable(_Table):
    concurrent: Concurrent | None = None
    cache_gib: Annotated[int, Field(ge=0, strict=True)] | None = None


class _SourceTable(_Table):
    concurrent: Concurrent | None = None
    bandwidth_mib: Bandwidth | None = None


_TABLES: Final[Mapping[type, type[_Table]]] = {
    IdentityPlugin: _Table,
    HypervisorPlugin: _Table,
    BackendPlugin: _BackendTable,
    SourcePlugin: _SourceTable,
}


class _Root(Options):
    """The file as a whole; the plugins' tables are read in a second step."""

    availability_zone: str = Field(default="nova", min_length=1, max_length=255)
    stop_seconds: Annotated[float, Field(gt=0, le=3600)] = 20.0
    api: Api = Api()
    state: State
    quota: Quota = Quota()
    imports: Imports
    identity: dict[str, Any]
    policy: dict[str, Any] = Field(default={})
    hypervisor: dict[str, Any] | None = None
    exports: dict[str, Any] | None = None
    rate_limits: list[RateLimitTable] = Field(default_factory=list)
    flavors: list[FlavorTable] = Field(default=list(_FLAVORS), min_length=1)
    backends: list[dict[str, Any]] = Field(min_length=1)
    sources: list[dict[str, Any]] = Field(min_length=1)

    @field_validator("flavors")
    @classmethod
    def _ids_differ(cls, value: list[FlavorTable]) -> list[FlavorTable]:
        for each in value:
            if [other.id for other in value].count(each.id) > 1:
                raise ValueError(f"the id {each.id!r} is given twice")
        return value

    @field_validator("backends", "sources")
    @classmethod
    def _names_differ(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        given = [table.get("name") for table in value]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"the name {name!r} is given twice")
        return value


@attrs.frozen
class Settings:
    """Everything the daemon is told; paths are absolute.

    :ivar stop_seconds: how long the daemon waits at its end for work that hangs.
    :ivar file: the configuration file.
    :ivar hypervisor: what runs servers; None where nothing does.
    :ivar exports: None where hypervisors open volumes where they lie.
    """

    file: Path
    availability_zone: str
    stop_seconds: float
    api: Api
    state: State
    quota: Quota
    imports: Imports
    identity: PluginSettings
    policy: Policy
    hypervisor: PluginSettings | None
    exports: Exports | None
    rate_limits: tuple[RateLimitTable, ...]
    flavors: tuple[FlavorTable, ...]
    backends: tuple[PluginSettings, ...]
    sources: tuple[PluginSettings, ...]
    database: URL

    def plugins(self) -> Iterator[tuple[str, PluginSettings]]:
        """Yield each configured plugin, and the place of its table in the file."""
        yield "identity", self.identity
        if self.hypervisor is not None:
            yield "hypervisor", self.hypervisor
        for n, each in enumerate(self.backends):
            yield f"backends[{n}]", each
        for n, each in enumerate(self.sources):
            yield f"sources[{n}]", each


def load(path: Path) -> Settings:
    """Read a configuration file; blocks on the disk.

    :raises ConfigurationError: a mistake in it, worded for the operator; each on a line.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from error
    return _read(path, tables)


def _read(path: Path, tables: Mapping[str, Any]) -> Settings:
    base = path.absolute().parent
    # An absent table is an empty one: its default paths still have to be made absolute.
    root = validate(path, "", _Root, {"state": {}, "imports": {}, **tables}, base)
    identity = {"name": "identity", "plugin": "static", **root.identity}
    found = Settings(
        file=path,
        availability_zone=root.availability_zone,
        stop_seconds=root.stop_seconds,
        api=root.api,
        state=root.state,
        quota=root.quota,
        imports=root.imports,
        identity=_plugin(path, "identity", IdentityPlugin, identity, base),
        policy=validate(path, "policy", Policy, root.policy, base),
        hypervisor=_hypervisor(path, root.hypervisor, base),
        exports=_exports(path, root.exports, base),
        rate_limits=tuple(root.rate_limits),
        flavors=tuple(root.flavors),
        backends=tuple(
            _plugin(path, f"backends[{n}]", BackendPlugin, table, base)
            for n, table in enumerate(root.backends)
        ),
        sources=tuple(
            _plugin(path, f"sources[{n}]", SourcePlugin, table, base)
            for n, table in enumerate(root.sources)
        ),
        database=_database(root.state.url, base),
    )
    if mistakes := list(_contradictions(found)):
        raise ConfigurationError("\n".join(f"{path}: {each}" for each in mistakes))
    return found


def _contradictions(found: Settings) -> Iterator[str]:
    stores = {"state.directory": found.state.directory}
    others = {"imports.spool": found.imports.spool}
    if found.exports is not None:
        stores["exports.directory"] = found.exports.directory
    if found.database.get_backend_name() == "sqlite":
        others["state.url"] = Path(found.database.database or "").parent
    sources: dict[str, Path] = {}
    for place, configured in found.plugins():
        directory = getattr(configured.options, "directory", None)
        if isinstance(directory, Path):
            if isinstance(configured.descriptor, SourcePlugin):
                where = sources
            else:
                where = others if isinstance(configured.descriptor, IdentityPlugin) else stores
            where[f"{place}.directory"] = directory
    yield from contradictions.of_folders(stores, others, sources)
    yield from contradictions.of_endpoints(found.api.listen)


def _database(url: str, base: Path) -> URL:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.set(drivername="sqlite", database=str(base / (parsed.database or "")))
    return parsed.set(drivername="postgresql+psycopg")


def _hypervisor(path: Path, table: Mapping[str, Any] | None, base: Path) -> PluginSettings | None:
    if table is None:
        return None
    return _plugin(path, "hypervisor", HypervisorPlugin, {"name": "hypervisor", **table}, base)


def _exports(path: Path, table: Mapping[str, Any] | None, base: Path) -> Exports | None:
    if table is None:
        return None
    model = TlsExports if table.get("by") == "tls" else Exports
    return validate(path, "exports", model, table, base)


def _plugin(
    path: Path, place: str, kind: type[plugins.Descriptor], table: Mapping[str, Any], base: Path
) -> PluginSettings:
    head = validate(path, place, _TABLES[kind], table, base)
    try:
        descriptor = plugins.load(kind, head.plugin)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {place}.plugin: {head.plugin!r}: {error}") from error
    core = head.model_dump()
    own = {key: value for key, value in table.items() if key not in core}
    options = validate(path, place, descriptor.settings, own, base)
    del core["plugin"]
    return PluginSettings(descriptor=descriptor, options=options, **core)
