"""The addresses of exports: sockets in a folder, or ports with TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import attrs

from bootvol import private, reading, tables
from bootvol.errors import ConfigurationError, ExportFailed
from bootvol.exports.processes import CREDENTIALS
from bootvol.jail.handing import contents
from bootvol.private import Kept

#: Longest path of a socket (unix(7), without its last zero) and longest name of a volume, in bytes.
_LONGEST_PATH, _LONGEST_NAME = 107, 64
#: The files that QEMU looks for in a folder of credentials (manual of qemu-system, "TLS setup").
_CREDENTIALS: Final = (
    "ca-cert.pem",
    "ca-crl.pem",
    "dh-params.pem",
    "server-cert.pem",
    "server-key.pem",
)
#: GnuTLS's defaults, but for TLS 1.2 and 1.3 only ("Priority strings" in GnuTLS's manual).
_TLS_VERSIONS: Final = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#: Maximum number of connections that wait.  Each export serves one connection at a time.
_BACKLOG: Final = 16
#: An idle client without answers counts as gone after 30 + 3 x 10 seconds.  Until then no other
#: client is served.  The connections of a listening socket inherit these options.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


@attrs.frozen
class Listening:
    """A listening socket, with a connection to the socket made before anybody else's.

    :ivar address: as in :class:`bootvol.model.ConnectionInfo`.
    :ivar port: port number; None for a socket in a folder.
    """

    listener: socket.socket
    probe: socket.socket
    address: str
    port: int | None

    def close(self) -> None:
        """Close both sockets."""
        self.listener.close()
        self.probe.close()


class Listener(Protocol):
    """A way to reach exports."""

    options: Sequence[str]

    def files(self) -> dict[str, bytes]:
        """Return the files of the folder ``bootvol.exports.processes.CREDENTIALS``.  Blocks.

        :raises OSError: if a file cannot be read.
        """

    def listen(self, name: str, port: int | None, taken: Collection[int]) -> Listening:
        """Listen for an export.  Blocks.

        :param port: former port of the export, to use again; None if the export had no port.
        :param taken: ports of other exports, even if nobody listens there now.
        :raises ExportFailed: if no address is free.
        :raises OSError: if the system cannot listen at the address.
        """


class Unix:
    """Sockets in a folder that only the daemon's user may enter.

    Another user connects to a socket only if the user owns the socket and has a descriptor of the
    folder of sockets: a confined QEMU gets both.

    :raises ConfigurationError: if the path is too long.
    """

    options: Sequence[str] = ()

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        size = len(os.fsencode(directory))
        most = _LONGEST_PATH - len(os.fsencode(socket_of(directory, "x" * _LONGEST_NAME))) + size
        if size > most:
            raise ConfigurationError(
                f"exports.directory: the path {directory} has {size} bytes; at most {most} bytes"
                " leave room for sockets. Name another directory, for example /run/bootvol."
            )

    def files(self) -> dict[str, bytes]:
        """See :meth:`Listener.files`."""
        return {}

    def listen(self, name: str, port: int | None, taken: Collection[int]) -> Listening:
        """See :meth:`Listener.listen`."""
        path = socket_of(self._directory, name)
        owner = None
        with contextlib.suppress(FileNotFoundError):
            owner = path.lstat().st_uid
            path.unlink()
        address = f"nbd+unix:///{name}?socket={quote(str(path))}"
        listening = _listening(socket.AF_UNIX, str(path), address, None)
        if owner not in (None, os.geteuid()):
            # The owner is the user of the QEMU that will connect again.
            os.chown(path, owner, -1)
        return listening


class Tls:
    """Ports, for clients that show a certificate.

    :raises ConfigurationError: if the host is not this machine, or the certificates are wrong.
    """

    def __init__(self, host: str, ports: Sequence[int], credentials: Path) -> None:
        self._host = host
        self._ports = ports
        self._credentials = credentials
        self.options: Sequence[str] = [
            "--object",
            "tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,"
            f"priority={_TLS_VERSIONS},dir=/proc/self/fd/{CREDENTIALS}",
            "--tls-creds=tls",
        ]
        _check_credentials(credentials)
        try:
            self._listen(0, "").close()
        except OSError as error:
            raise ConfigurationError(
                f"exports.host: the daemon cannot listen at {host!r}: {error.strerror}. Name an"
                " address of this machine, or a name of such an address."
            ) from error

    def files(self) -> dict[str, bytes]:
        """See :meth:`Listener.files`."""
        return contents(self._credentials, _CREDENTIALS)

    def listen(self, name: str, port: int | None, taken: Collection[int]) -> Listening:
        """See :meth:`Listener.listen`."""
        if port is not None:
            return self._listen(port, name)
        first, last = self._ports
        for each in range(first, last + 1):
            if each not in taken:
                try:
                    return self._listen(each, name)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
        raise ExportFailed(f"All ports from {first} to {last} are in use.")

    def _listen(self, port: int, name: str) -> Listening:
        # Look the name up each time: the name may lead elsewhere after a while.
        family, _, _, _, address = socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM)[0]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return _listening(family, address, f"nbds://{host}:{port}/{name}", port)


def make(options: tables.ExportsTable) -> Listener:
    """Return the place that the operator chose, and make the folder.  Blocks.

    :raises ConfigurationError: if the place cannot be used.
    """
    _make_private(options.directory)
    if isinstance(options, tables.TlsExportsTable):
        return Tls(options.host, options.ports, options.credentials)
    return Unix(options.directory)


def socket_of(directory: Path, name: str) -> Path:
    """Return the path of an export's socket."""
    return sockets_in(directory) / name


def sockets_in(directory: Path) -> Path:
    """Return the folder of the sockets, in the folder of exports."""
    return directory / "s"


def is_there(address: str) -> bool:
    """Return whether clients find an export at its address.  Blocks.

    :returns: False if the export's socket was taken away.
    """
    paths = parse_qs(urlsplit(address).query).get("socket", [])
    return all(Path(path).is_socket() for path in paths)


def _listening(
    family: int, where: str | tuple[object, ...], address: str, port: int | None
) -> Listening:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        if port is not None:
            # Connections of the former listener that are still closing must not prevent the bind.
            for level, option, value in ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), *_KEEPALIVE):
                listener.setsockopt(level, option, value)
        if family == socket.AF_UNIX:
            # Set the mode of the socket in the file system before anybody can connect.
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(where)
        listener.listen(_BACKLOG)
        probe = stack.enter_context(socket.socket(family))
        probe.connect(listener.getsockname())
        stack.pop_all()
    return Listening(listener, probe, address, port)


def _make_private(directory: Path) -> None:
    try:
        private.make("exports.directory", directory, Kept.CLOSED)
        sockets = sockets_in(directory)
        sockets.mkdir(exist_ok=True)
        sockets.chmod(0o711)
    except OSError as error:
        raise ConfigurationError(
            f"exports.directory: {directory} cannot be used: {error.strerror}. Name a folder on a"
            " disk where the daemon's user may write."
        ) from error


def _check_credentials(folder: Path) -> None:
    """Check that qemu-nbd will find the files that it needs, by the names that it knows.

    :raises ConfigurationError: if a file is missing or cannot be used.
    """
    try:
        for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
            reading.check(folder / name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(folder / "ca-cert.pem")
        context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    except OSError as error:
        raise ConfigurationError(
            f"exports.credentials: {folder}: {error.strerror or error}. Put ca-cert.pem,"
            " server-cert.pem and server-key.pem there; docs/exports.md says how they are made."
        ) from error
