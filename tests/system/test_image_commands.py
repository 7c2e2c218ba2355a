"""The commands that add and delete images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bootvol.testing.backends import noise
from tests.processes import BIN, Process, process
from tests.waiting import LIMIT, block_until

MIB = 1024 * 1024
CONTENT = noise(510) + b"\x55\xaa" + noise(3 * MIB)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon that takes images, 16 MiB of a project."""
    more = "writable = true\nquota_gib = 0.015625"
    with process(tmp_path_factory.mktemp("daemon"), more) as daemon:
        yield daemon


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image in a container."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(CONTENT)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    subprocess.run(command, check=True, timeout=LIMIT)
    return path


def add(daemon: Process, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `bootvol image add`."""
    return subprocess.run(
        [BIN / "bootvol", "image", "add", *arguments],
        env={**os.environ, "BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": "root"},
        input=stdin,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


def added(daemon: Process, *arguments: str, stdin: bytes = b"") -> Any:
    """Add an image; return the image."""
    done = add(daemon, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(daemon: Process) -> list[str]:
    """Return the ids of all images, also of those without data."""
    names = (daemon.images / ".bootvol-images").glob("*.json")
    return [each.stem for each in names]


def delete(daemon: Process, image: str) -> None:
    """Delete an image by the command."""
    done = daemon.cli("image", "delete", image)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_file(daemon: Process, disk: Path) -> None:
    done = add(daemon, str(disk), "--min-disk", "1")
    image = json.loads(done.stdout)
    assert (image["name"], image["disk_format"], image["min_disk"]) == ("disk.qcow2", "qcow2", 1)
    assert (image["status"], image["size"]) == ("active", disk.stat().st_size)
    assert b"disk.qcow2" in done.stderr, "the progress"
    assert "disk.qcow2" in daemon.cli("image", "list").stdout
    delete(daemon, image["id"])
    assert listed(daemon) == []
    assert daemon.cli("image", "delete", image["id"]).returncode == 4


def test_standard_input(daemon: Process) -> None:
    image = added(daemon, "-", "--name", "mine", "--format", "iso", stdin=CONTENT)
    assert (image["name"], image["disk_format"], image["size"]) == ("mine", "iso", len(CONTENT))
    delete(daemon, image["id"])


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, without a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Write nothing."""


def test_a_url(daemon: Process, disk: Path) -> None:
    handler = partial(Quiet, directory=str(disk.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            image = added(daemon, f"{url}/disk.qcow2")
            missing = add(daemon, f"{url}/missing")
        finally:
            server.shutdown()
            thread.join()
    assert (image["name"], image["size"]) == ("disk.qcow2", disk.stat().st_size)
    delete(daemon, image["id"])
    assert missing.returncode == 5
    assert b"cannot be read: HTTP Error 404" in missing.stderr
    assert listed(daemon) == []


def test_a_volume_of_a_file(daemon: Process, disk: Path) -> None:
    made = daemon.cli("volume", "create", "--image", str(disk), "--size", "1", "--wait")
    assert made.returncode == 0, made.stderr
    volume = json.loads(made.stdout)
    assert volume["status"] == "available"
    (path,) = daemon.files()
    with path.open("rb") as file:
        assert file.read(len(CONTENT)) == CONTENT
    (image,) = listed(daemon)
    assert daemon.cli("volume", "delete", str(volume["id"]), "--wait").returncode == 0
    delete(daemon, image)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89PNG\r\n\x1a\n" + noise(9000), "PNG"),
        (b"", "The image is empty."),
        (noise(40 * MIB), "The project's images may have 0.015625 GiB together."),
    ],
    ids=["picture", "empty", "large"],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_an_image_that_is_refused(
    daemon: Process, tmp_path: Path, content: bytes, told: str, as_file: bool
) -> None:
    """The message is the service's, although the service takes no more bytes; no image is left."""
    path = tmp_path / "image"
    path.write_bytes(content)
    done = add(daemon, str(path)) if as_file else add(daemon, "-", stdin=content)
    assert done.returncode == 1
    assert told in done.stderr.decode()
    assert listed(daemon) == []


def test_an_image_that_cannot_be_read(daemon: Process, tmp_path: Path) -> None:
    for place in (tmp_path / "missing", tmp_path):
        done = add(daemon, str(place))
        assert done.returncode == 1
        assert b"cannot be read" in done.stderr
    assert listed(daemon) == []


def test_ctrl_c_leaves_no_image(daemon: Process) -> None:
    with subprocess.Popen(
        [BIN / "bootvol", "image", "add", "-"],
        env={**os.environ, "BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": "root"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdin is not None
        command.stdin.write(CONTENT)
        command.stdin.flush()
        block_until(lambda: list((daemon.images / ".bootvol-images").glob("*.part")))
        command.send_signal(signal.SIGINT)
        command.stdin.close()
        assert command.wait(LIMIT) == 130
        assert command.stderr is not None
        assert b"interrupted: no image is added" in command.stderr.read()
    assert listed(daemon) == []


def test_a_service_that_takes_no_images(tmp_path: Path, disk: Path) -> None:
    with process(tmp_path) as daemon:
        done = add(daemon, str(disk))
        assert done.returncode == 1
        assert b"This service takes no images. (HTTP 501)" in done.stderr
