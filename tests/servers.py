"""HTTP servers for tests: on loopback, on a free port, gone with the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.web.resource import IResource
from twisted.web.server import Site

reactor: Any = _reactor


@attrs.frozen
class Server:
    """A server that runs."""

    port: int

    @property
    def url(self) -> str:
        """Its root, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def serve(root: IResource) -> Iterator[Server]:
    """Serve a resource until the block ends."""
    listening = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
    try:
        yield Server(listening.getHost().port)
    finally:
        pytest_twisted.blockon(listening.stopListening())


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
