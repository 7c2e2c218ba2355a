"""SIGHUP, as operators and logrotate send it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemons import configuration
from tests.processes import BIN, cli, run
from tests.servers import free_port


def until(condition: Callable[[], bool]) -> None:
    """Wait, for minutes if need be."""
    end = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_daemon_that_is_sent_sighup(tmp_path: Path) -> None:
    """The log goes on in a new file once the old one was moved, and a new token is known."""
    port = free_port()
    (tmp_path / "images").mkdir()
    config = tmp_path / "twistd.conf"
    config.write_text(configuration(port))
    env = {"BOOTVOL_ENDPOINT": f"http://127.0.0.1:{port}/v1.1/11692683195772"}

    def code(token: str) -> int:
        return cli("--token", token, "volume", "list", env=env).returncode

    log = tmp_path / "bootvol.log"
    started = run([BIN / "twistd", "--logfile", log, "bootvol"], cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        until(lambda: code("ann") == 0)
        log.rename(tmp_path / "bootvol.log.1")
        config.write_text(config.read_text().replace('token = "ann"', 'token = "carol"'))
        assert code("carol") == 3
        os.kill(pid, signal.SIGHUP)
        until(lambda: log.exists() and "applied: identity" in log.read_text())
        assert "applied" not in (tmp_path / "bootvol.log.1").read_text()
        assert (code("carol"), code("ann")) == (0, 3)
        # Twisted's own way to rotate works as ever.
        os.kill(pid, signal.SIGUSR1)
        until(lambda: "applied" not in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not (tmp_path / "twistd.pid").exists())
    assert "Server Shut Down" in log.read_text()
