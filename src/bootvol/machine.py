"""Checks of the machine against the configuration, before the daemon starts.

``bootvol check-config --machine`` and the start of the daemon use the same checks, so the command
finds the same faults as the start.  The checks change nothing on the machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from bootvol import checks, database_checks, descriptors, locks, private, secrecy, store_checks
from bootvol.api import tls
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.exports import listeners
from bootvol.interfaces import BackendPlugin, IdentityPlugin, SourcePlugin
from bootvol.jail import trial
from bootvol.model import GIB
from bootvol.patience import found_in_time, in_time
from bootvol.reactors import IReactor
from bootvol.settings import PluginSettings, Settings
from bootvol.tables import ExportsTable, TlsExportsTable

_MIB: Final = 1024 * 1024
_LAST_PORT: Final = 65535
#: Length limit of a socket's path in bytes (unix(7), without the terminating zero).
_LONGEST_SOCKET: Final = 107
#: By the error of bind(2): the reason in the operator's words, and the remedy.
_NOT_BOUND: Final = {
    errno.EADDRINUSE: ("another program listens there", "End that program, or name another port."),
    errno.EACCES: ("only root may listen there", "Name a port above 1023, or start as root."),
    errno.EADDRNOTAVAIL: (
        "the address is not one of this machine",
        "Name an address that `ip address` shows.",
    ),
}


@attrs.frozen
class Finding:
    """One fault, as a line for the operator.

    :ivar line: text with the file, the key, the value and the remedy.
    :ivar fatal: False if the daemon runs anyway.
    """

    line: str
    fatal: bool


def examine(config: Settings, reactor: IReactor) -> list[Finding]:
    """Check the machine.  Blocks: call this function before the reactor runs.

    Ports are not checked while a daemon runs with the same state directory: that daemon uses them.

    :param reactor: the reactor, which is not started here.
    """
    found = []
    for mistake in _mistakes(config, reactor):
        line = str(mistake)
        fatal = mistake.fatal if isinstance(mistake, Mistake) else True
        found.append(Finding(f"{config.file}: {line}", fatal))
    return found


def _mistakes(config: Settings, reactor: IReactor) -> Iterator[Mistake | str]:
    directory = config.state.directory
    try:
        taken = in_time("state.directory", directory, lambda: locks.is_taken(directory))
    except ConfigurationError as error:
        yield str(error)
    else:
        yield from found_in_time("state.directory", directory, lambda: _state(directory, taken))
        if not taken:
            yield from _endpoints(config.api.listen, config.exports)
    yield from found_in_time("secrets", config.file, lambda: _secrecy(config))
    yield from _descriptors(config)
    yield from database_checks.check(config.database, reactor)
    spool = config.imports.spool
    yield from found_in_time("imports.spool", spool, lambda: _imports(config), fatal=False)
    runs = config.exports is not None or config.hypervisor is not None
    yield from trial.check(config.sandbox.jail, needed=runs)
    if (exports := config.exports) is not None:
        yield from found_in_time("exports", exports.directory, lambda: _exports(exports))
    yield from _guests(config)
    yield from _memory(config)
    yield from _roles(config)
    for place, configured in config.plugins():
        for mistake in _of_plugin(configured):
            yield attrs.evolve(mistake, key=f"{place}.{mistake.key}")
    yield from store_checks.check(config, reactor)


def _state(directory: Path, taken: bool) -> Iterator[Mistake]:
    key = "state.directory"
    if taken:
        fault = f"another daemon uses {directory}"
        yield Mistake(
            key, directory, fault, "Stop that daemon, or give each daemon its own folder."
        )
    else:
        yield from locks.check_directory(directory)
    yield from checks.folder(key, directory)


def _secrecy(config: Settings) -> Iterator[Mistake]:
    yield from secrecy.of_files(config)
    for n, endpoint in enumerate(config.api.listen):
        yield from secrecy.of_endpoint(f"api.listen[{n}]", endpoint)
    yield from secrecy.of_folders(config)


def _of_plugin(configured: PluginSettings) -> list[Mistake]:
    check = configured.descriptor.check or (lambda _options: ())
    options = configured.options
    # The daemon runs without a backend or a source until that one answers.
    spared = isinstance(configured.descriptor, (BackendPlugin, SourcePlugin))
    return found_in_time(
        "name",
        configured.name,
        lambda: [*private.check_options(options), *check(options)],
        fatal=not spared,
    )


def _descriptors(config: Settings) -> Iterator[Mistake | str]:
    try:
        _, short = descriptors.connections(config)
    except ConfigurationError as error:
        yield str(error)
        return
    if short is not None:
        yield short


def _roles(config: Settings) -> Iterator[Mistake]:
    """Warn of roles that grant nothing: their names may be misspelt."""
    identity = config.identity.descriptor
    granted = identity.roles if isinstance(identity, IdentityPlugin) else None
    for key, role in granted(config.identity.options) if granted is not None else ():
        if role.lower() not in config.policy.known:
            fault = "no right in [policy] has this role, so the role grants nothing"
            remedy = "Correct the name, or name the role in [policy]."
            yield Mistake(f"identity.{key}", role, fault, remedy, fatal=False)


def _endpoints(listen: list[str], exports: ExportsTable | None) -> Iterator[Mistake]:
    with contextlib.ExitStack() as held:
        # Hold the sockets of all endpoints at once, to find two endpoints with the same address.
        paths: set[str] = set()
        for n, endpoint in enumerate(listen):
            key = f"api.listen[{n}]"
            try:
                planned = tls.plan(endpoint)
            except Exception as error:
                why = str(error) or "this kind of endpoint does not listen"
                remedy = "Correct the endpoint, or the files that it names."
                yield Mistake(key, endpoint, f"the endpoint cannot listen: {why}", remedy)
                continue
            for each in planned:
                if each.path is not None:
                    yield from _unix(key, endpoint, each.path, paths)
                else:
                    yield from _tcp(key, endpoint, each, held)
                    yield from _apart(key, endpoint, each.port, exports)
                yield from _in_time(key, endpoint, each)


def _tcp(
    key: str, endpoint: str, listener: tls.ListeningSocket, held: contextlib.ExitStack
) -> Iterator[Mistake]:
    """Check a port by listening there.

    :param held: sockets of the earlier endpoints; the socket of this port is added.
    """
    if not 0 <= listener.port <= _LAST_PORT:
        yield Mistake(key, endpoint, "the port does not exist", f"Name a port up to {_LAST_PORT}.")
        return
    try:
        held.enter_context(_bound(listener))
    except OverflowError:
        yield Mistake(key, endpoint, "the backlog is too large", "Lower the backlog.")
    except OSError as error:
        unknown = ("nothing can listen there", "Name an address and a port of this machine.")
        fault, remedy = _NOT_BOUND.get(error.errno or 0, unknown)
        if error.errno == errno.EADDRINUSE and _is_free_without(listener, held):
            fault = "an earlier endpoint listens at the same port"
            remedy = "Remove one of the endpoints, or name another port; tcp6 serves IPv4, too."
        yield Mistake(key, endpoint, f"{fault} ({error.strerror})", remedy)


def _apart(key: str, endpoint: str, port: int, exports: ExportsTable | None) -> Iterator[Mistake]:
    """Warn of a port that an export may take while the daemon is down or elsewhere."""
    if isinstance(exports, TlsExportsTable) and exports.ports[0] <= port <= exports.ports[1]:
        fault = "the port is one of exports.ports, so no export can have the port, or the API none"
        remedy = "Name another port, or other ports in exports.ports."
        yield Mistake(key, endpoint, fault, remedy, fatal=False)


def _bound(listener: tls.ListeningSocket) -> socket.socket:
    """Return a socket that listens at the address, the port and the backlog of an endpoint.

    :raises OSError: if no socket can listen there.
    :raises OverflowError: if the backlog is larger than the system's numbers.
    """
    found = socket.getaddrinfo(
        listener.interface or None,
        listener.port,
        type=socket.SOCK_STREAM,
        family=socket.AF_UNSPEC if listener.interface else socket.AF_INET,
        flags=socket.AI_PASSIVE,
    )
    family, kind, protocol, _, address = found[0]
    with contextlib.ExitStack() as stack:
        tried = stack.enter_context(socket.socket(family, kind, protocol))
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)
        tried.listen(listener.backlog)
        stack.pop_all()
    return tried


def _is_free_without(listener: tls.ListeningSocket, held: contextlib.ExitStack) -> bool:
    """Close the sockets of the earlier endpoints; return whether the port is free then."""
    held.close()
    try:
        _bound(listener).close()
    except OSError:
        return False
    return True


def _unix(key: str, endpoint: str, path: str, paths: set[str]) -> Iterator[Mistake]:
    """Check the path of a socket.

    :param paths: socket paths of the earlier endpoints; this endpoint's path is added.
    """
    length = len(os.fsencode(path))
    if not 0 < length <= _LONGEST_SOCKET:
        fault = f"the path of the socket has {length} bytes"
        yield Mistake(key, endpoint, fault, f"Name a path of 1 to {_LONGEST_SOCKET} bytes.")
        return
    place = Path(path).absolute()
    if not place.parent.exists():
        yield Mistake(
            key, endpoint, f"the folder {place.parent} does not exist", "Create the folder."
        )
        return
    yield from checks.folder(key, place.parent)
    # Clients would send their tokens to a socket that another user puts there.
    yield from private.check(key, place, private.Kept.PLACE)
    real = os.path.realpath(path)
    if real in paths:
        fault = "an earlier endpoint listens at the same path"
        yield Mistake(key, endpoint, fault, "Remove one of the endpoints, or name another path.")
    elif _answers(path):
        fault, remedy = _NOT_BOUND[errno.EADDRINUSE]
        yield Mistake(key, endpoint, fault, remedy.replace("port", "path"))
    elif os.path.lexists(path) and not _is_left_over(place):
        yield Mistake(
            key, endpoint, "another file has this path", f"Delete {path}, or name another path."
        )
    paths.add(real)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as tried, contextlib.suppress(OSError):
        tried.connect(path)
        return True
    return False


def _is_left_over(path: Path) -> bool:
    """Return whether Twisted will replace a socket: its lock names a process that has ended."""
    try:
        owner = int(os.readlink(f"{path}.lock"))
    except (OSError, ValueError):
        return False
    return path.is_socket() and not Path(f"/proc/{owner}").exists()


def _in_time(key: str, endpoint: str, listener: tls.ListeningSocket) -> Iterator[Mistake]:
    certificate = listener.certificate()
    if certificate is None:
        return
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        fault = (
            f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to"
            f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and not now"
        )
        yield Mistake(
            key, endpoint, fault, "Put a valid certificate there, and send SIGHUP.", fatal=False
        )


def _imports(config: Settings) -> Iterator[Mistake]:
    spool = config.imports.spool
    yield from checks.folder("imports.spool", spool)
    wanted = config.imports.spool_gib
    if wanted is not None and (disk := checks.existing(spool)).is_dir():
        free = shutil.disk_usage(disk).free
        if wanted * GIB > free:
            yield Mistake(
                "imports.spool_gib",
                wanted,
                f"the disk of {spool} has {free / GIB:.1f} GiB free",
                "Lower the value, or move the spool to a larger disk.",
                fatal=False,
            )
    for program in ("qemu-img", "qemu-nbd"):
        for mistake in checks.program("imports", program, "qemu-utils", fatal=False):
            fault = f"{mistake.fault}, so imports of qcow2, vmdk, vhd, vhdx and vdi images fail"
            yield attrs.evolve(mistake, fault=fault)


def _exports(exports: ExportsTable) -> Iterator[Mistake | str]:
    found = list(checks.folder("exports.directory", exports.directory))
    yield from found
    yield from checks.program("exports", "qemu-nbd", "qemu-utils")
    if found:
        return
    try:
        listeners.make(exports)
    except ConfigurationError as error:
        yield str(error)
        return
    if isinstance(exports, TlsExportsTable):
        yield from checks.credentials(
            "exports.credentials", exports.credentials, "server", exports.host
        )


def _guests(config: Settings) -> Iterator[Mistake]:
    """Warn of a database that admits a QEMU that a guest has taken over.

    Unless the daemon is root, such a QEMU is the daemon's user.  For exported disks, QEMU may
    connect to the sockets of that user.
    """
    exports, url = config.exports, config.database
    of_socket = exports is not None and exports.by == "unix"
    if os.geteuid() == 0 or config.hypervisor is None or not of_socket:
        return
    host = url.host or str(url.query.get("host", "/"))
    if url.get_backend_name() != "sqlite" and host.startswith("/") and url.password is None:
        yield Mistake(
            "state.url",
            url.render_as_string(hide_password=True),
            "a guest that breaks out of QEMU reaches the database's socket as the daemon's user",
            "Have the database demand a password (pg_hba.conf: scram-sha-256), or run the daemon as"
            " root.",
            fatal=False,
        )


def _memory(config: Settings) -> Iterator[Mistake]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    buffers = config.imports.buffers * config.imports.buffer_kib * 1024
    needed = buffers * (config.imports.concurrent + 1)
    if needed > memory // 2:
        yield Mistake(
            "imports.buffers",
            config.imports.buffers,
            f"all imports together may take {needed // _MIB} MiB of the machine's"
            f" {memory // _MIB} MiB",
            "Lower imports.buffers, imports.buffer_kib or imports.concurrent.",
            fatal=False,
        )
    if config.hypervisor is None:
        return
    for n, flavor in enumerate(config.flavors):
        if flavor.ram * _MIB > memory:
            yield Mistake(
                f"flavors[{n}].ram",
                flavor.ram,
                f"the machine has {memory // _MIB} MiB",
                "Reduce the flavor's ram.",
                fatal=False,
            )
