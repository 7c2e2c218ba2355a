"""While a machine of the command line has a volume, no other user of the volume is accepted."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import urllib.error
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from demo.bootdisk import HELLO, disk

from bootvol.jail import FIRST_USER
from tests.processes import BIN, Process, process
from tests.waiting import LIMIT, LONG_LIMIT, block_until

#: The last output of a machine without anything to boot; the machine then waits.
NOTHING = "No bootable device."
HOSTING = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\naccel = "tcg"\n'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with a blank volume, number 1."""
    with process(tmp_path) as daemon:
        blank(daemon)
        yield daemon


def blank(daemon: Process) -> None:
    """Make a volume without anything to boot: a machine with the volume runs on for ever."""
    daemon.call("POST", "os-volumes", {"volume": {"size": 1}})
    assert set(daemon.until_settled()) == {"available"}


def exporting(folder: Path, sockets: str) -> AbstractContextManager[Process]:
    """Return a daemon that exports volumes."""
    return process(folder, f'[exports]\nby = "unix"\ndirectory = "{sockets}/e"\n')


def begun(daemon: Process) -> subprocess.Popen[str]:
    """Boot volume 1; return when the machine runs."""
    machine = daemon.begin("volume", "boot", "1", "--seconds", "3000")
    assert machine.stdout is not None
    while NOTHING not in (line := machine.stdout.readline()):
        assert line, machine.communicate()[1]
    return machine


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_volume_is_its_machines_until_that_ends(daemon: Process, how: signal.Signals) -> None:
    machine = begun(daemon)
    volume = daemon.get("os-volumes/1")["volume"]
    assert volume["status"] == "in-use"
    assert volume["attachments"][0]["serverId"].startswith("boot-")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        daemon.delete(1)
    again = daemon.cli("volume", "boot", "1")
    assert again.returncode == 1
    assert volume["attachments"][0]["serverId"] in again.stderr
    assert "`bootvol volume detach 1`" in again.stderr
    assert machine.poll() is None, "it is left alone"
    machine.send_signal(how)
    _, told = machine.communicate(timeout=LONG_LIMIT)
    assert machine.returncode == 128 + how
    assert "free the volume with `bootvol volume detach 1`" in told
    assert daemon.get("os-volumes/1")["volume"]["status"] == "available"


def test_the_terminal_is_closed(daemon: Process) -> None:
    """The terminal is the guest's console: Ctrl-C goes to the guest, but the end of the terminal
    ends the command.
    """
    env = {**os.environ, "BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": "root"}
    pid, terminal = pty.fork()
    if not pid:
        os.execve(BIN / "bootvol", ["bootvol", "volume", "boot", "1"], env)
    try:
        shown = b""
        while NOTHING.encode() not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        assert daemon.statuses() == ["in-use"]
    finally:
        os.close(terminal)
    os.waitpid(pid, 0)
    assert set(daemon.until_settled()) == {"available"}


def test_its_machine_is_confined(daemon: Process) -> None:
    """The confinement is the same as for servers: see `tests/integration/test_qemu.py`.

    Break: `src/bootvol/cli/boot.py`: `return Jail().command(command, bounds)` -> `return command`
    """
    machine = begun(daemon)
    confined(child(machine))
    machine.send_signal(signal.SIGINT)
    machine.communicate(timeout=LONG_LIMIT)


def confined(machine: Path) -> None:
    """Check that a process, by its folder in /proc, has a user of its own and no rights."""
    status = (machine / "status").read_text()
    user = FIRST_USER + int(machine.name) if os.geteuid() == 0 else os.geteuid()
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in status
    assert "NoNewPrivs:\t1" in status
    assert f"CapBnd:\t{0:016x}" in status or os.geteuid()


def test_a_command_that_is_killed(daemon: Process) -> None:
    """The machine ends with the command; the volume stays attached, and can be released."""
    machine = begun(daemon)
    running = child(machine)
    machine.kill()
    machine.communicate()
    block_until(lambda: not running.exists())
    assert daemon.statuses() == ["in-use"]
    freed = daemon.cli("volume", "detach", "1", "--wait")
    assert freed.returncode == 0, freed.stderr
    assert daemon.statuses() == ["available"]
    nothing = daemon.cli("volume", "detach", "1")
    assert (nothing.returncode, "is not attached" in nothing.stderr) == (1, True)


def test_a_machine_that_is_killed(daemon: Process) -> None:
    machine = begun(daemon)
    os.kill(int(child(machine).name), signal.SIGKILL)
    _, told = machine.communicate(timeout=LONG_LIMIT)
    assert machine.returncode == 1
    assert told.endswith("bootvol: qemu-system-x86_64 was ended from outside: Killed\n")
    assert daemon.statuses() == ["available"]


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf"])
def test_a_time_limit_that_is_none(daemon: Process, seconds: str) -> None:
    refused = daemon.cli("volume", "boot", "1", "--seconds", seconds)
    assert refused.returncode == 2
    assert "Invalid value for '--seconds'" in refused.stderr
    assert daemon.statuses() == ["available"]


def child(command: subprocess.Popen[str]) -> Path:
    """Return the folder in /proc of a command's QEMU."""
    (pid,) = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    return Path("/proc", pid)


def test_the_daemon_may_be_away_when_the_machine_ends(daemon: Process) -> None:
    machine = begun(daemon)
    daemon.stop()
    machine.send_signal(signal.SIGTERM)
    daemon.start()
    machine.communicate(timeout=LONG_LIMIT)
    assert set(daemon.until_settled()) == {"available"}


def test_a_token_that_has_ended_when_the_machine_ends(daemon: Process) -> None:
    """The command does not retry for minutes with an expired token."""
    machine = begun(daemon)
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace('token = "root"', 'token = "new"'))
    daemon.process.send_signal(signal.SIGHUP)
    block_until(lambda: daemon.cli("volume", "list").returncode != 0)
    machine.send_signal(signal.SIGTERM)
    _, told = machine.communicate(timeout=LIMIT)
    assert "with a token that is valid, free the volume with `bootvol volume detach 1`" in told
    assert daemon.cli("volume", "detach", "1", "--wait", token="new").returncode == 0


def test_a_volume_that_is_somebody_elses(daemon: Process) -> None:
    wanted = {"volumeAttachment": {"volumeId": 1, "device": "/dev/vdb"}}
    daemon.call("POST", "servers/web-7/os-volume_attachments", wanted)
    assert daemon.until_settled() == ["in-use"]
    refused = daemon.cli("volume", "boot", "1")
    assert refused.returncode == 1
    assert refused.stderr == "bootvol: volume 1 is in-use: server web-7 has it\n"
    assert daemon.cli("volume", "detach", "1", "--wait").returncode == 0


def test_where_the_service_runs_servers_itself(tmp_path: Path) -> None:
    with process(tmp_path, HOSTING) as daemon:
        blank(daemon)
        refused = daemon.cli("volume", "boot", "1")
        assert refused.returncode == 1
        assert "only to its own servers" in refused.stderr
        assert daemon.statuses() == ["available"]


def test_an_exported_volume_boots(tmp_path: Path) -> None:
    """The machine has the volume by its export, as any other client would, and is confined.

    Break: `src/bootvol/cli/boot.py`: `return Jail().command(command, bounds)` -> `return command`
    """
    # The path of a socket has at most 108 bytes: unix(7).
    with TemporaryDirectory() as short, exporting(tmp_path, short) as daemon:
        (daemon.images / "bootdisk.raw").write_bytes(disk())
        daemon.create("bootdisk.raw")
        assert set(daemon.until_settled()) == {"available"}
        for count in ("01", "02"):
            booted = daemon.cli("volume", "boot", "1", "--seconds", "30")
            assert f"{HELLO}{count}." in booted.stdout, booted.stderr
        assert daemon.statuses() == ["available"]
        machine = daemon.begin("volume", "boot", "1", "--seconds", "3000")
        assert machine.stdout is not None
        assert machine.stdout.readline(), machine.communicate()[1]
        confined(child(machine))
        machine.send_signal(signal.SIGINT)
        machine.communicate(timeout=LONG_LIMIT)
