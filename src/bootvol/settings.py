"""The configuration file, read from TOML into typed settings.

The message of a mistake names the file, the table and key, the value, and a remedy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Protocol

import attrs
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.engine import URL, make_url

from bootvol import contradictions, plugins, reading
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, HypervisorPlugin, IdentityPlugin, SourcePlugin
from bootvol.options import Options, Secrets, Text
from bootvol.policy import Policy
from bootvol.tables import (
    FLAVORS,
    Api,
    Concurrent,
    ExportsTable,
    FlavorTable,
    Imports,
    MibPerSecond,
    Name,
    QuotaTable,
    RateLimitTable,
    SandboxTable,
    State,
    TlsExportsTable,
)
from bootvol.validation import Model, validate


@attrs.frozen
class PluginSettings:
    """One configured plugin, with the core's settings and the plugin's own.

    :ivar name: the operator's name for the plugin.
    :ivar concurrent: number of concurrent imports per daemon; None for no limit of the plugin's
        own.
    :ivar bandwidth_mib: bandwidth per daemon in MiB per second; None for no limit of the plugin's
        own.
    :ivar cache_gib: space for cached images in GiB; None for the backend's
        default.
    :ivar delta: whether volumes are made from cached images of earlier releases.
    """

    name: str
    descriptor: plugins.AnyPlugin
    options: BaseModel
    concurrent: int | None = None
    bandwidth_mib: float | None = None
    cache_gib: int | None = None
    delta: bool = False


class _Table(BaseModel):
    """The core's keys in a plugin's table.  All other keys belong to the plugin."""

    name: Name
    plugin: str


class _BackendTable(_Table):
    concurrent: Concurrent | None = None
    cache_gib: Annotated[int, Field(ge=0, strict=True)] | None = None
    delta: Annotated[bool, Field(strict=True)] = False


class _SourceTable(_Table):
    concurrent: Concurrent | None = None
    bandwidth_mib: MibPerSecond | None = None


_TABLES: Final[Mapping[type, type[_Table]]] = {
    IdentityPlugin: _Table,
    HypervisorPlugin: _Table,
    BackendPlugin: _BackendTable,
    SourcePlugin: _SourceTable,
}


class _Root(Options):
    """The whole file.  The tables of plugins are read in a second step."""

    availability_zone: Text = "nova"
    stop_seconds: Annotated[float, Field(gt=0, le=3600)] = 20.0
    api: Api = Api()
    state: State
    quota: QuotaTable = QuotaTable()
    imports: Imports
    sandbox: SandboxTable = SandboxTable()
    identity: dict[str, object]
    policy: dict[str, object] = Field(default={})
    hypervisor: dict[str, object] | None = None
    exports: dict[str, object] | None = None
    rate_limits: list[RateLimitTable] = Field(default_factory=list)
    flavors: list[FlavorTable] = Field(default=list(FLAVORS), min_length=1)
    backends: list[dict[str, object]] = Field(min_length=1)
    sources: list[dict[str, object]] = Field(min_length=1)

    @field_validator("flavors")
    @classmethod
    def _differ(cls, value: list[FlavorTable]) -> list[FlavorTable]:
        for key in ("id", "name"):
            given = [getattr(each, key) for each in value]
            for each in given:
                if given.count(each) > 1:
                    raise ValueError(f"the {key} {each!r} is given twice")
        return value

    @field_validator("backends", "sources")
    @classmethod
    def _names_differ(cls, value: list[dict[str, object]]) -> list[dict[str, object]]:
        given = [table.get("name") for table in value]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"the name {name!r} is given twice")
        return value


@attrs.frozen
class Settings:
    """All settings of the daemon.  Paths are absolute.

    :ivar file: path of the configuration file.
    :ivar stop_seconds: seconds that the daemon waits at its end for work that hangs.
    :ivar hypervisor: the plugin that runs servers; None for a daemon without servers.
    :ivar exports: None if hypervisors open volumes in place.
    :ivar secret_files: files named by ``file:`` settings, each with its place in the configuration.
    :ivar holds_secrets: whether the configuration file itself contains secrets.
    """

    file: Path
    availability_zone: str
    stop_seconds: float
    api: Api
    state: State
    quota: QuotaTable
    imports: Imports
    sandbox: SandboxTable
    identity: PluginSettings
    policy: Policy
    hypervisor: PluginSettings | None
    exports: ExportsTable | None
    rate_limits: tuple[RateLimitTable, ...]
    flavors: tuple[FlavorTable, ...]
    backends: tuple[PluginSettings, ...]
    sources: tuple[PluginSettings, ...]
    database: URL
    secret_files: tuple[tuple[str, Path], ...]
    holds_secrets: bool

    def plugins(self) -> Iterator[tuple[str, PluginSettings]]:
        """Yield the place of each plugin's table in the file, and its settings."""
        yield "identity", self.identity
        if self.hypervisor is not None:
            yield "hypervisor", self.hypervisor
        for n, each in enumerate(self.backends):
            yield f"backends[{n}]", each
        for n, each in enumerate(self.sources):
            yield f"sources[{n}]", each


def load(path: Path, listening: Collection[str] = ()) -> Settings:
    """Read a configuration file.  Blocks on the disk.

    :param listening: endpoint descriptions to accept without a check.  A running daemon keeps its
        endpoints, even if their keys and certificates have changed since.
    :raises ConfigurationError: if the file has mistakes.  The message is for the operator, with a
        line for each mistake.
    """
    try:
        # Some editors begin a file with a byte order mark.
        tables = tomllib.loads(reading.content(path).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Invalid TOML, integers of thousands of digits, or arrays nested too deeply.
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error
    return _read(path, tables, listening)


def _read(path: Path, tables: Mapping[str, object], listening: Collection[str]) -> Settings:
    base = path.absolute().parent
    secrets = Secrets()
    read = partial(validate, path, base=base, secrets=secrets, listening=listening)
    # Read a missing table as an empty one, to make its default paths absolute.
    root = read("", _Root, {"state": {}, "imports": {}, **tables})
    database = _database(root.state.url, base)
    identity = {"name": "identity", "plugin": "static", **root.identity}
    found = Settings(
        file=path,
        availability_zone=root.availability_zone,
        stop_seconds=root.stop_seconds,
        api=root.api,
        state=root.state,
        quota=root.quota,
        imports=root.imports,
        sandbox=root.sandbox,
        identity=_plugin(path, "identity", IdentityPlugin, identity, read),
        policy=read("policy", Policy, root.policy),
        hypervisor=_hypervisor(path, root.hypervisor, read),
        exports=_exports(root.exports, read),
        rate_limits=tuple(root.rate_limits),
        flavors=tuple(root.flavors),
        backends=tuple(
            _plugin(path, f"backends[{n}]", BackendPlugin, table, read)
            for n, table in enumerate(root.backends)
        ),
        sources=tuple(
            _plugin(path, f"sources[{n}]", SourcePlugin, table, read)
            for n, table in enumerate(root.sources)
        ),
        database=database,
        # ``secrets`` is complete here: Python evaluates arguments in order.
        secret_files=tuple(
            (key, base / file) for key, file in _files("", tables) if base / file in secrets.files
        ),
        holds_secrets=secrets.written or database.password is not None,
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
    files = {"the configuration file": found.file.absolute()}
    key_file = getattr(found.identity.options, "key_file", None)
    if isinstance(key_file, Path):
        files["identity.key_file"] = key_file
    yield from contradictions.of_folders(stores, others, sources)
    yield from contradictions.of_files(files, sources)
    yield from contradictions.of_endpoints(found.api.listen)


def _files(place: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the place and the file of each value of the form ``file:FILE``."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _files(f"{place}.{key}".lstrip("."), each)
    elif isinstance(value, list):
        for n, each in enumerate(value):
            yield from _files(f"{place}[{n}]", each)
    elif isinstance(value, str) and value.startswith("file:"):
        yield place, value.removeprefix("file:")


def _database(url: str, base: Path) -> URL:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.set(drivername="sqlite", database=str(base / (parsed.database or "")))
    return parsed.set(drivername="postgresql+psycopg")


class _Read(Protocol):
    """The function :func:`bootvol.validation.validate`, bound to one configuration file."""

    def __call__(self, place: str, model: type[Model], table: Mapping[str, object]) -> Model: ...


def _hypervisor(
    path: Path, table: Mapping[str, object] | None, read: _Read
) -> PluginSettings | None:
    if table is None:
        return None
    return _plugin(path, "hypervisor", HypervisorPlugin, {"name": "hypervisor", **table}, read)


def _exports(table: Mapping[str, object] | None, read: _Read) -> ExportsTable | None:
    if table is None:
        return None
    return read("exports", TlsExportsTable if table.get("by") == "tls" else ExportsTable, table)


def _plugin(
    path: Path, place: str, kind: type[plugins.Descriptor], table: Mapping[str, object], read: _Read
) -> PluginSettings:
    head = read(place, _TABLES[kind], table)
    try:
        descriptor = plugins.load(kind, head.plugin)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {place}.plugin: {head.plugin!r}: {error}") from error
    core = head.model_dump()
    own = {key: value for key, value in table.items() if key not in core}
    options = read(place, descriptor.settings, own)
    del core["plugin"]
    return PluginSettings(descriptor=descriptor, options=options, **core)
