"""Twisted server endpoint descriptions of the configuration, and their mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from bootvol import reading

_SEPARATOR: Final = re.compile(r"(?<!\\):")
#: The endpoints of sockets, also behind ``haproxy:``, and those with their own backlog.
_SOCKET: Final = re.compile(r"(haproxy:)?(tcp6?|ssl|unix):")
_STATED: Final = re.compile(r"(?<!\\):backlog=")
#: Connections that may wait to be accepted, unless the description states another number.  Beyond
#: that, Linux drops new connections: clients wait for seconds, or see a reset (listen(2)).
BACKLOG: Final = 1024
#: Marks of an encrypted key in a PEM file (RFC 1421, section 4.6.1.1; RFC 7468, section 11).
_ENCRYPTED: Final = (b"4,ENCRYPTED", b"BEGIN ENCRYPTED PRIVATE KEY")


def parse(reactor: object, description: str) -> IStreamServerEndpoint:
    """Return the endpoint of a description.

    Blocks on the disk if the description names a key and certificates.  Never asks for the
    passphrase of a key.

    :raises ValueError: if the description or one of its files is wrong; the text says why.
    """
    for file in files(description):
        try:
            reading.check(file)
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from error
        if any(sign in content for sign in _ENCRYPTED):
            raise ValueError(
                f"the key in {file} is encrypted, and the daemon cannot ask for the passphrase;"
                " remove the passphrase with `openssl pkey`"
            )
    if _SOCKET.match(description) and not _STATED.search(description):
        description += f":backlog={BACKLOG}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (SSL.Error, crypto.Error) as error:
        named = ", ".join(map(str, files(description)))
        raise ValueError(
            f"{named}: no key with its certificate found ({_reasons(error)})"
        ) from error
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    except Exception as error:
        raise ValueError(str(error).rstrip(".")) from error
    return endpoint


def url_of(description: str) -> str | None:
    """Return the URL of an endpoint for clients on the same machine; None if clients need another.

    :param description: a description that :func:`parse` accepts.
    """
    kind, _, rest = description.removeprefix("haproxy:").partition(":")
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    parts = [each.replace("\\", "") for each in _SEPARATOR.split(rest)]
    options = dict(each.split("=", 1) for each in parts if "=" in each)
    port = options.get("port", parts[0])
    host = options.get("interface", "")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - a comparison
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if kind == 'ssl' else 'http'}://{shown}:{port}"


def files(description: str) -> list[Path]:
    """Return the existing files of a TLS endpoint's key and certificates.  Blocks.

    A returned path may be something other than a file, such as a pipe.
    """
    if not description.startswith("ssl:"):
        return []
    parts = [each.replace("\\", "") for each in _SEPARATOR.split(description)]
    paths = [Path(each.partition("=")[2] or each) for each in parts]
    # Without a file name, Twisted takes this one.
    named = [each for each in paths if _is_there(each)] or [Path("server.pem")]
    return [each for each in dict.fromkeys(named) if _is_there(each)]


def _is_there(path: Path) -> bool:
    return path.exists() and not path.is_dir()


def _reasons(error: Exception) -> str:
    """Return OpenSSL's reasons, without the names of its routines."""
    found = error.args[0] if error.args else ()
    told = [each[-1] for each in found if isinstance(each, tuple)] if found else []
    return "; ".join(dict.fromkeys(told)) or str(error) or type(error).__name__
