"""What waits for the service outlives its restarts, and says what goes on without it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootvol.cli.login import access
from bootvol.testing.backends import noise
from tests.people import PASSWORD, PEOPLE
from tests.processes import Process, cli, process

#: Imports take some seconds.
SLOW = "[imports]\nbandwidth_mib = 2\ncheckpoint_mib = 1\n"
CONTENT = noise(12 * 1024 * 1024)
CREATE = ("volume", "create", "--image", "disk.raw", "--size", "1", "--wait")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon whose imports take some seconds."""
    with process(tmp_path, SLOW) as daemon:
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        yield daemon


def begun(daemon: Process) -> subprocess.Popen[str]:
    """Create a volume; return when its id has been told."""
    waiting = daemon.begin(*CREATE)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "volume 1: creating\n"
    return waiting


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_does_not_wait_is_told_what_goes_on(daemon: Process, how: signal.Signals) -> None:
    waiting = begun(daemon)
    waiting.send_signal(how)
    printed, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 128 + how
    assert json.loads(printed)["id"] == 1
    last = told.splitlines()[-1]
    assert "volume 1 is being made all the same: see it with `bootvol volume show 1`" in last
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
    printed, told = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, told
    assert json.loads(printed)["status"] == "available"


def test_a_volume_that_is_deleted_meanwhile(daemon: Process) -> None:
    waiting = begun(daemon)
    daemon.delete(1)
    printed, told = waiting.communicate(timeout=120)
    assert waiting.returncode == 4
    assert json.loads(printed)["id"] == 1
    assert told.splitlines()[-1] == "bootvol: volume 1 has been deleted"


def test_a_failure_has_the_id_and_the_image(daemon: Process) -> None:
    (daemon.images / "disk.raw").write_bytes(b"<html>")
    made = daemon.cli(*CREATE)
    assert made.returncode == 1
    assert json.loads(made.stdout)["id"] == 1
    assert "volume 1 of the image disk.raw: The image is an HTML" in made.stderr


def test_a_token_that_expires(tmp_path: Path) -> None:
    """Who logs in does so again; who has only a token is told how to go on."""
    people = PEOPLE.replace("[identity]\n", "[identity]\ntoken_hours = 0.0008\n", 1)
    with process(tmp_path, SLOW, identity=people) as daemon:
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        login = {
            "OS_AUTH_URL": f"{daemon.url}/identity/v3",
            "OS_USERNAME": "ann",
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "demo",
        }
        made = cli(*CREATE, env=login)
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["status"] == "available"

        token = access("", "", login).token
        env = {"BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": token}
        with_token = cli(*CREATE, env=env)
        assert with_token.returncode == 3
        assert json.loads(with_token.stdout)["id"] == 2
        assert "put another one into BOOTVOL_TOKEN" in with_token.stderr
        assert "volume 2 is being made all the same" in with_token.stderr
