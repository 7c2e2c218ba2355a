"""A daemon with a silent name server serves images of other hosts, and ends on request."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests import processes
from tests.daemons import pause, reactor
from tests.processes import Process
from tests.servers import Server, serve

#: The address of the silent name server.
ADDRESS = "127.0.0.53"
#: More than the reactor's number of threads.
MANY = 15
CONFIG = """
[[sources]]
name = "web"
plugin = "http"
allow = ["{url}", "http://silent.example/"]
networks = ["127.0.0.0/8", "::1/128"]
timeout = 30.0
"""


@pytest.fixture
def name_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A name server that never answers, only for daemons: they have their own resolv.conf."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {ADDRESS}\n")
    mount = f'mount --bind {shlex.quote(str(conf))} /etc/resolv.conf && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
    tried = subprocess.run([*private, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this takes root, to mount a resolv.conf: {tried.stderr}")
    monkeypatch.setattr(processes, "TWISTD", [*private, *processes.TWISTD])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((ADDRESS, 53))
        yield silent


@pytest.fixture
def server() -> Iterator[Server]:
    """A healthy server, known without a name server."""
    with serve(BadWeb(noise(100_000), reactor)) as server:
        yield server


def refusal(daemon: Process) -> Any:
    """Request an image from a host with a silent name server; return the answer."""
    try:
        daemon.create("http://silent.example/disk.raw")
    except HTTPError as error:
        return error.code, json.loads(error.read())["serviceUnavailable"]["message"]
    return None


@ensureDeferred
async def test_a_silent_name_server(
    tmp_path: Path, name_server: socket.socket, server: Server
) -> None:
    daemon = await deferToThread(Process, tmp_path, CONFIG.format(url=server.url))
    try:
        asking = gatherResults([deferToThread(refusal, daemon) for _ in range(MANY)])
        await pause(0.5)
        assert not asking.called
        await deferToThread(daemon.create, f"{server.url}good")
        assert not asking.called, "the other host did not wait for the silent one"
        # The system itself gives up after ten seconds.
        answers = await asking
        reason = "The name server does not answer for silent.example."
        assert answers == [(503, reason)] * MANY
        assert name_server.recv(512)
    finally:
        await deferToThread(daemon.stop, signal.SIGTERM)
