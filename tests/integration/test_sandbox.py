"""The programs that read images: how they end, and what becomes of those that do not."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from bootvol.errors import BackendFailed, BootvolError, ConverterMissing, ImageBomb, ImageCorrupt
from bootvol.imaging import containers
from bootvol.imaging.containers import Containers
from bootvol.imaging.sandbox import Sandbox
from bootvol.model import GIB
from bootvol.threads import Threads
from tests.daemons import pause, reactor
from tests.images import HOSTILE, qcow2


@pytest.fixture
def sandbox() -> Sandbox:
    """A sandbox with memory enough."""
    return Sandbox(reactor, 2**30)


@ensureDeferred
async def test_a_program_that_is_cancelled_has_ended(sandbox: Sandbox) -> None:
    running = Deferred.fromCoroutine(sandbox.run(["sleep", "60"], {}, 10))
    await pause(0.5)
    running.cancel()
    with pytest.raises(CancelledError):
        await running


@ensureDeferred
async def test_a_program_has_so_long_to_end(sandbox: Sandbox) -> None:
    program = await sandbox.start(["sh", "-c", "echo well; exit 3"], {}, 10)
    ended = await program.end_within(60)
    assert ended is not None
    assert (ended.code, ended.out) == (3, "well\n")
    program = await sandbox.start(["sleep", "60"], {}, 10)
    assert await program.end_within(0.1) is None
    assert (await program.end()).code == -9


@ensureDeferred
async def test_a_program_whose_daemon_has_died_does_not_run(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the daemon dies before the program could ask to be told of that."""
    command = ["sh", "-c", f"echo ran; : {tmp_path}"]
    assert (await sandbox.run(command, {}, 10)).out == "ran\n"
    another = os.getppid()
    with monkeypatch.context() as patch:
        patch.setattr("bootvol.imaging.sandbox.os.getpid", lambda: another)
        program = await sandbox.start(command, {}, 10)
    ended = await program.end()
    assert (ended.code, ended.out) == (1, "")


@ensureDeferred
async def test_limits(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(ImageBomb):
        await sandbox.run(["sh", "-c", "while :; do :; done"], {}, 1)
    with pytest.raises(ConverterMissing):
        await sandbox.run(["no-such-program"], {}, 10)
    with (tmp_path / "file").open("wb") as file:
        ended = await sandbox.run(["sh", "-c", "echo more >&7"], {7: file.fileno()}, 10)
    assert ended.code
    assert not (tmp_path / "file").read_bytes(), "nothing can be written"


@ensureDeferred
async def test_what_it_is_given(sandbox: Sandbox) -> None:
    command = "ulimit -v; id -u; grep -c : /proc/net/dev; grep -E 'CapBnd|NoNew' /proc/self/status"
    said = (await sandbox.run(["sh", "-c", command], {}, 10)).out
    memory, user, networks, bound, barred = said.splitlines()
    assert int(memory) == 2**20, "KiB"
    assert int(networks) == 1, "loopback"
    assert barred.split()[1] == "1"
    if os.geteuid() == 0:
        assert int(user) == 65534
        assert int(bound.split()[1], 16) == 0


@ensureDeferred
async def test_threads_do_not_take_the_memory_of_the_image(tmp_path: Path) -> None:
    """With the least memory that can be configured: reading this has many threads wait."""
    sandbox = Sandbox(reactor, 2**28)
    image = tmp_path / "image"
    image.write_bytes(HOSTILE["snapshots"].make(tmp_path))
    with image.open("rb") as file:
        command = ["qemu-img", "info", "--format=qcow2", "/proc/self/fd/4"]
        for _ in range(5):
            assert (await sandbox.run(command, {4: file.fileno()}, 10)).code == 0


async def opened(folder: Path, sandbox: Sandbox, threads: Threads) -> BootvolError:
    """Open a good image, and return why that does not work."""
    image = folder / "image"
    image.write_bytes(qcow2(folder))
    with image.open("rb") as file:
        async with AsyncExitStack() as stack:
            with pytest.raises(BootvolError) as failed:
                await Containers(sandbox, threads).open("qcow2", file.fileno(), GIB, stack)
    return failed.value


@ensureDeferred
async def test_servers_that_fail(
    sandbox: Sandbox, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # They lie where only this user may look.
    monkeypatch.setattr("bootvol.imaging.sandbox._NOBODY", ())
    monkeypatch.setattr(containers, "_GRACE", 0.2)
    monkeypatch.setattr(containers, "_SILENCE", 1)
    server = tmp_path / "qemu-nbd"
    python = shutil.which("python3")
    speaking = (
        f"exec {python} -c 'import socket, time\n"
        'client = socket.socket(fileno=3).accept()[0]; client.sendall(b"x" * 100); time.sleep(60)\''
    )
    for does, kind, text in (
        ("echo qemu-nbd: it is broken >&2; exit 1", ImageCorrupt, "cannot be read: it is broken"),
        (speaking, ImageCorrupt, "cannot be read: no greeting"),
        ("exec sleep 60", ImageBomb, "more time"),
    ):
        server.write_text(f"#!/bin/sh\n{does}\n")
        server.chmod(stat.S_IRWXU)
        error = await opened(tmp_path, sandbox, threads)
        assert type(error) is kind
        assert text in error.message


@ensureDeferred
async def test_where_no_socket_can_be_made(
    sandbox: Sandbox, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    error = await opened(tmp_path, sandbox, threads)
    assert type(error) is BackendFailed
    assert error.message.startswith("No socket can be made to read the image: ")
