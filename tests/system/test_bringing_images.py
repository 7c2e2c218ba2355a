"""Clients of OpenStack bring images, and the daemon survives whatever happens meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootvol.testing.backends import noise
from tests.daemons import TENANT
from tests.people import BOBS, PASSWORD, PEOPLE
from tests.processes import BIN, Process, process
from tests.waiting import LIMIT, block_until

CLIENTS = Path(__file__).parents[2] / ".venv-clients" / "bin"
WRITABLE = "writable = true\nquota_gib = 1"
MIB = 1024 * 1024
CONTENT = noise(3 * MIB + 512)
LIST = "/image/v2/images"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with log-ins that takes images."""
    with process(tmp_path_factory.mktemp("daemon"), WRITABLE, identity=PEOPLE) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as a user has it."""
    folder = tmp_path_factory.mktemp("laptop")
    raw, path = folder / "disk.raw", folder / "disk.qcow2"
    raw.write_bytes(CONTENT)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    subprocess.run(command, check=True, timeout=LIMIT)
    return path


def run(
    daemon: Process, program: Path, *arguments: str, user: str = "ann"
) -> subprocess.CompletedProcess[str]:
    """Run a client as Ann in the project demo, or as Bob in the project other."""
    password, project = (PASSWORD, "demo") if user == "ann" else (BOBS, "other")
    return subprocess.run(
        [program, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(daemon.folder),
            "LC_ALL": "C.UTF-8",
            "OS_AUTH_URL": f"{daemon.url}/identity/v3",
            "OS_USERNAME": user,
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def told(daemon: Process, *arguments: str) -> str:
    """Run `openstack image`; return its output."""
    done = run(daemon, CLIENTS / "openstack", "image", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openstack(daemon: Process, qcow2: Path, tmp_path: Path) -> None:
    made = json.loads(
        told(
            daemon,
            *("create", "--file", str(qcow2), "--disk-format", "qcow2", "--min-disk", "1"),
            *("--property", "os_distro=debian", "--tag", "mine", "-f", "json", "debian"),
        )
    )
    assert (made["status"], made["visibility"], made["owner"]) == ("active", "shared", TENANT)
    assert (made["size"], made["virtual_size"]) == (qcow2.stat().st_size, len(CONTENT))
    told(daemon, "set", "--property", "os_version=13", "--min-ram", "64", "--tag", "new", "debian")
    told(daemon, "unset", "--property", "os_distro", "--tag", "mine", "debian")
    shown = json.loads(told(daemon, "show", "-f", "json", "debian"))
    assert (shown["min_ram"], shown["tags"]) == (64, ["new"])
    assert "os_distro" not in shown["properties"]
    assert shown["properties"]["os_version"] == "13"
    saved = tmp_path / "saved.qcow2"
    told(daemon, "save", "--file", str(saved), "debian")
    assert saved.read_bytes() == qcow2.read_bytes()
    assert made["id"] in told(daemon, "list", "--shared", "-f", "json")
    others = run(daemon, CLIENTS / "openstack", "image", "list", "-f", "json", user="bob")
    assert json.loads(others.stdout) == []
    refused = run(
        daemon,
        CLIENTS / "openstack",
        *("image", "create", "--public", "--file", str(qcow2), "x"),
        user="bob",
    )
    assert refused.returncode == 1
    assert "publicize_image" in refused.stderr
    assert made["id"] in told(daemon, "list")
    told(daemon, "set", "--protected", "debian")
    protected = run(daemon, CLIENTS / "openstack", "image", "delete", "debian")
    assert "is protected and cannot be deleted" in protected.stderr
    told(daemon, "set", "--unprotected", "debian")
    told(daemon, "delete", "debian")
    assert json.loads(told(daemon, "list", "-f", "json")) == []


def test_openstack_tells_why_a_file_is_no_image(daemon: Process, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + noise(9000))
    arguments = ("image", "create", "--file", str(path), "--disk-format", "raw", "picture")
    done = run(daemon, CLIENTS / "openstack", *arguments)
    assert done.returncode == 1
    assert "PNG" in done.stderr


def test_glanceclient(daemon: Process, qcow2: Path, tmp_path: Path) -> None:
    """Glance's own client sends the data in chunks."""
    made = run(
        daemon,
        BIN / "glance",
        *("image-create", "--name", "of glance", "--file", str(qcow2)),
        *("--disk-format", "qcow2", "--container-format", "bare", "--property", "a=b"),
    )
    assert made.returncode == 0, made.stderr
    assert "| status           | active" in made.stdout
    words = made.stdout.split()
    image = words[words.index("id") + 2]
    saved = tmp_path / "saved.qcow2"
    done = run(daemon, BIN / "glance", "image-download", "--file", str(saved), image)
    assert done.returncode == 0, done.stderr
    assert saved.read_bytes() == qcow2.read_bytes()
    for arguments in (("image-update", "--name", "x", image), ("image-delete", image)):
        done = run(daemon, BIN / "glance", *arguments)
        assert done.returncode == 0, done.stderr


def call(daemon: Process, method: str, path: str, body: object = None) -> Any:
    """Send a request with Ann's static token; return the answer's JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=LIMIT)
    headers = {"X-Auth-Token": "ann", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse().read()
    connection.close()
    return json.loads(answer)


def begin(daemon: Process, image: str, length: int) -> socket.socket:
    """Begin an upload; return its connection."""
    connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=LIMIT)
    connection.sendall(
        f"PUT {LIST}/{image}/file HTTP/1.1\r\nHost: h\r\nX-Auth-Token: ann\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


RAW = {"disk_format": "raw", "container_format": "bare"}


def test_a_daemon_that_is_killed_during_an_upload(tmp_path: Path) -> None:
    """The image is queued again, its space is free, and the next upload succeeds."""
    with process(tmp_path, WRITABLE) as daemon:
        image = call(daemon, "POST", LIST, RAW)["id"]
        connection = begin(daemon, image, 99 * MIB)
        connection.sendall(CONTENT)
        folder = daemon.images / ".bootvol-images"
        part = folder / f"{image}.part"
        block_until(lambda: part.exists() and part.stat().st_size)
        daemon.stop(signal.SIGKILL)
        connection.close()
        assert part.exists()
        daemon.start()
        block_until(lambda: not part.exists())
        assert call(daemon, "GET", f"{LIST}/{image}")["status"] == "queued"
        connection = begin(daemon, image, len(CONTENT))
        connection.sendall(CONTENT)
        assert connection.recv(12) == b"HTTP/1.1 204"
        connection.close()
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert call(daemon, "GET", f"{LIST}/{image}")["status"] == "active"
        assert (folder / f"{image}.disk").read_bytes() == CONTENT


def test_a_large_upload_takes_little_memory(tmp_path: Path) -> None:
    with process(tmp_path, WRITABLE) as daemon:
        images = [call(daemon, "POST", LIST, RAW)["id"] for _ in range(2)]

        def peak() -> int:
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024

        def upload(image: str, mib: int) -> None:
            connection = begin(daemon, image, mib * MIB)
            for _ in range(mib):
                connection.sendall(piece)
            assert connection.recv(12) == b"HTTP/1.1 204"
            connection.close()

        piece = noise(MIB)
        upload(images[0], 8)
        before = peak()
        upload(images[1], 300)
        assert peak() - before < 32 * MIB
