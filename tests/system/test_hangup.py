"""SIGHUP, as sent by operators and logrotate."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.daemons import configuration
from tests.processes import BIN, cli
from tests.servers import free_port
from tests.waiting import LIMIT, block_until


def hears_sighup(pid: int, how: str = "SigCgt:") -> bool:
    """Return whether a process has a handler for the signal.

    :param how: ``SigIgn:`` to ask whether the process ignores the signal.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(how))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGHUP - 1))


def test_a_signal_before_the_daemon_is_loaded(tmp_path: Path) -> None:
    """`bootvol serve` outlives SIGHUP, although the daemon cannot answer the signal yet.

    Break: `src/bootvol/cli/__init__.py`: `== ["serve"]` -> `== []`
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "twistd.conf").write_text(configuration(free_port()))
    starting = subprocess.Popen(
        [BIN / "bootvol", "serve"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    block_until(lambda: hears_sighup(starting.pid, "SigIgn:") or hears_sighup(starting.pid))
    starting.send_signal(signal.SIGHUP)
    assert starting.stdout is not None
    try:
        assert any("unfinished work continues" in line for line in starting.stdout)
    finally:
        starting.terminate()
        starting.communicate(timeout=LIMIT)


def test_a_daemon_that_is_sent_sighup(tmp_path: Path) -> None:
    """The log continues in a new file after the old one was moved, and a new token is known.

    Signals during the start are answered afterwards. If the log's folder is gone, the old file
    stays in use, and new tokens are known nevertheless.
    """
    port = free_port()
    (tmp_path / "images").mkdir()
    config = tmp_path / "twistd.conf"
    config.write_text(configuration(port))
    env = {"BOOTVOL_ENDPOINT": f"http://127.0.0.1:{port}/v1.1/11692683195772"}

    def code(token: str) -> int:
        return cli("--token", token, "volume", "list", env=env).returncode

    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "bootvol.log"
    starting = subprocess.Popen([BIN / "twistd", "--logfile", log, "bootvol"], cwd=tmp_path)
    # The daemon is far from ready, and answers later.
    block_until(lambda: hears_sighup(starting.pid))
    starting.send_signal(signal.SIGHUP)
    assert starting.wait(LIMIT) == 0
    block_until(lambda: log.exists() and "applied: nothing new" in log.read_text())
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        block_until(lambda: code("ann") == 0)
        log.rename(folder / "bootvol.log.1")
        config.write_text(config.read_text().replace('token = "ann"', 'token = "carol"'))
        assert code("carol") == 3
        os.kill(pid, signal.SIGHUP)
        block_until(lambda: log.exists() and "applied: identity" in log.read_text())
        assert "applied: identity" not in (folder / "bootvol.log.1").read_text()
        assert (code("carol"), code("ann")) == (0, 3)
        # Twisted's own rotation works as before.
        os.kill(pid, signal.SIGUSR1)
        block_until(lambda: "applied" not in log.read_text())
        away = folder.rename(tmp_path / "away")
        config.write_text(config.read_text().replace('token = "carol"', 'token = "dora"'))
        os.kill(pid, signal.SIGHUP)
        block_until(lambda: "applied: identity" in (away / "bootvol.log").read_text())
        assert "so the log continues in the former file" in (away / "bootvol.log").read_text()
        assert (code("dora"), code("carol")) == (0, 3)
        away.rename(folder)
    finally:
        os.kill(pid, signal.SIGTERM)
        block_until(lambda: not (tmp_path / "twistd.pid").exists())
    assert "Server Shut Down" in log.read_text()
