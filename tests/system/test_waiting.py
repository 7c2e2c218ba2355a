"""Waiting commands survive restarts of the service, and report work that continues without them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootvol.cli.login import access
from bootvol.testing.backends import noise
from tests.people import PASSWORD, PEOPLE
from tests.processes import Process, process
from tests.waiting import LONG_LIMIT

#: Imports take some seconds.
SLOW = "[imports]\nbandwidth_mib = 2\ncheckpoint_mib = 1\n"
CONTENT = noise(12 * 1024 * 1024)
CREATE = ("volume", "create", "--image", "disk.raw", "--size", "1", "--wait")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with imports of some seconds."""
    with process(tmp_path, SLOW) as daemon:
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        yield daemon


def begun(daemon: Process, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Create a volume; return once the command has printed the id."""
    waiting = daemon.begin(*CREATE, env=env)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "volume 1: creating\n"
    return waiting


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_does_not_wait_is_told_what_goes_on(daemon: Process, how: signal.Signals) -> None:
    waiting = begun(daemon)
    waiting.send_signal(how)
    printed, told = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 128 + how
    assert json.loads(printed)["id"] == 1
    last = told.splitlines()[-1]
    assert "volume 1 is being made nevertheless: see it with `bootvol volume show 1`" in last
    assert "Traceback" not in told
    assert daemon.statuses()[0] in {"creating", "downloading", "available"}
    gone = daemon.cli("volume", "delete", "1", "--wait")
    assert gone.returncode == 0, gone.stderr
    assert daemon.statuses() == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_wait_outlives_the_daemon(daemon: Process, how: signal.Signals) -> None:
    waiting = begun(daemon)
    daemon.stop(how)
    daemon.start()
    printed, told = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 0, told
    assert json.loads(printed)["status"] == "available"


def test_a_closed_standard_error_ends_no_wait(daemon: Process) -> None:
    waiting = begun(daemon)
    assert waiting.stderr is not None
    waiting.stderr.close()
    printed, _ = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 0
    assert json.loads(printed)["status"] == "available"


def test_a_volume_that_is_deleted_meanwhile(daemon: Process) -> None:
    waiting = begun(daemon)
    daemon.delete(1)
    printed, told = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 4
    assert json.loads(printed)["id"] == 1
    assert told.splitlines()[-1] == "bootvol: volume 1 has been deleted"


def test_a_failure_has_the_id_and_the_image(daemon: Process) -> None:
    (daemon.images / "disk.raw").write_bytes(b"<html>")
    made = daemon.cli(*CREATE)
    assert made.returncode == 1
    assert json.loads(made.stdout)["id"] == 1
    assert "volume 1 of the image disk.raw: The image is an HTML" in made.stderr


@pytest.fixture
def people(tmp_path: Path) -> Iterator[Process]:
    """A daemon with imports of some seconds, and with log-ins."""
    with process(tmp_path, SLOW, identity=PEOPLE) as daemon:
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        yield daemon


def login(daemon: Process) -> dict[str, str]:
    """Return the environment of a user who logs in."""
    return {
        "OS_AUTH_URL": f"{daemon.url}/identity/v3",
        "OS_USERNAME": "ann",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
    }


def forget_tokens(daemon: Process) -> None:
    """Restart the daemon with another key, so that no token stays valid."""
    daemon.stop(signal.SIGKILL)
    shutil.rmtree(daemon.folder / "identity")
    daemon.start()


def test_who_logs_in_does_so_again(people: Process) -> None:
    waiting = begun(people, login(people))
    forget_tokens(people)
    printed, told = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 0, told
    assert json.loads(printed)["status"] == "available"


def test_who_has_only_a_token_is_told_how_to_go_on(people: Process) -> None:
    token = access("", "", login(people)).token
    waiting = begun(people, {"BOOTVOL_ENDPOINT": people.base, "BOOTVOL_TOKEN": token})
    forget_tokens(people)
    printed, told = waiting.communicate(timeout=LONG_LIMIT)
    assert waiting.returncode == 3
    assert json.loads(printed)["id"] == 1
    assert "set BOOTVOL_TOKEN to a valid token" in told
    assert "volume 1 is being made nevertheless" in told
