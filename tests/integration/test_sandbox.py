"""The programs that read images: their ends, and programs that do not end."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from bootvol import headroom
from bootvol.errors import (
    BackendFailed,
    BootvolError,
    ConverterMissing,
    ImageBomb,
    ImageCorrupt,
    ImportFailed,
    SpoolSilent,
)
from bootvol.imaging import containers
from bootvol.imaging.containers import Containers
from bootvol.imaging.sandbox import Program, Sandbox
from bootvol.jail import FIRST_USER, THREADS, Bounds, Jail
from bootvol.jail.program import Lacking
from bootvol.model import GIB
from bootvol.shortage import short_of
from bootvol.threads import Threads
from tests import probe
from tests.daemons import pause, reactor
from tests.images import GOOD, qcow2
from tests.jails import ANOTHER, PYTHON, ROOT, attacks
from tests.waiting import LIMIT, until


@pytest.fixture
def sandbox() -> Sandbox:
    """A sandbox with enough memory."""
    return Sandbox(reactor, 2**30, Jail())


@ensureDeferred
async def test_a_program_that_is_cancelled_has_ended(sandbox: Sandbox) -> None:
    running = Deferred.fromCoroutine(sandbox.run(["sleep", "60"], 10))
    await pause(0.5)
    running.cancel()
    with pytest.raises(CancelledError):
        await running


@ensureDeferred
async def test_a_program_has_so_long_to_end(sandbox: Sandbox) -> None:
    """A program that takes too long is killed.

    Break: `src/bootvol/imaging/sandbox.py`: `self._clock.callLater(seconds, self.kill)` ->
    `self._clock.callLater(seconds, str)`.
    """
    program = sandbox.start(["sh", "-c", "echo well; exit 3"], 10)
    ended = await program.end_within(60)
    assert ended is not None
    assert (ended.code, ended.out) == (3, "well\n")
    program = sandbox.start(["sleep", "60"], 10)
    assert await program.end_within(0.1) is None
    assert (await program.end()).code == -9


@ensureDeferred
async def test_a_program_whose_daemon_has_died_does_not_run(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may die before the program could ask to be told."""
    command = ["sh", "-c", f"echo ran; : {tmp_path}"]
    assert (await sandbox.run(command, 10)).out == "ran\n"
    another = os.getppid()
    with monkeypatch.context() as patch:
        patch.setattr("bootvol.jail.os.getpid", lambda: another)
        program = sandbox.start(command, 10)
    ended = await program.end()
    assert (ended.code, ended.out) == (126, "")
    assert "daemon has ended" in ended.reason


@ensureDeferred
async def test_limits(sandbox: Sandbox) -> None:
    """Memory and time are bounded, and the program cannot write to the daemon's file.

    Break: `src/bootvol/imaging/sandbox.py`: `{"AS": self._memory, "CPU": seconds,` -> `{`
    """
    ended = await sandbox.start(["sh", "-c", "while :; do :; done"], 1).end_within(60)
    assert ended is not None
    with pytest.raises(ImageBomb):
        ended.check_spent()
    with pytest.raises(ConverterMissing, match="there is no program no-such-program"):
        await sandbox.run(["no-such-program"], 10)
    with tempfile.TemporaryFile() as file:
        ended = await sandbox.run(["sh", "-c", "echo more >&7"], 10, {7: file.fileno()})
        assert ended.code
        assert not file.seek(0, os.SEEK_END), "nothing can be written"


@ensureDeferred
async def test_what_it_is_given(sandbox: Sandbox) -> None:
    """A program has no rights and, under root, a user of its own.

    Break: `src/bootvol/jail/program/__init__.py`: `os.setresuid(uid, uid, uid)` ->
    `os.setresuid(1, 1, 1)`
    Break: `src/bootvol/jail/program/__init__.py`: `_PR_CAPBSET_DROP, capability` ->
    `_PR_CAPBSET_DROP, 63`
    Break: `src/bootvol/jail/__init__.py`: `f"limit=NPROC:{THREADS}"` -> `"limit=CORE:0"`
    """
    said = "ulimit -v; echo $$; exec sleep 60"
    programs = [sandbox.start(["sh", "-c", said], 10) for _ in range(2)]
    shown = []
    for program in programs:
        while program.out.count("\n") < 2:
            await pause(0.05)
        memory, pid = program.out.split()
        assert int(memory) == 2**20, "KiB"
        status = Path(f"/proc/{pid}/status").read_text()
        has = {
            name: value.split()
            for name, _, value in (each.partition(":") for each in status.splitlines())
        }
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        for kind in "Inh", "Prm", "Eff", "Amb":
            assert f"Cap{kind}:\t{0:016x}" in status
        if os.geteuid() == 0:
            assert f"CapBnd:\t{0:016x}" in status
            assert has["Uid"] == has["Gid"] == [str(FIRST_USER + int(pid))] * 4
            assert has["Groups"] == []
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(rf"^Max processes +{THREADS} +{THREADS} ", limits, re.MULTILINE)
        shown.append(has["Uid"][0])
        program.kill()
        await program.end()
    assert len(set(shown)) == (2 if os.geteuid() == 0 else 1)


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_nothing_is_reached_from_inside(user: int) -> None:
    """The daemon's files, other volumes, other processes and the network are out of reach, also
    under another user.

    Break: `src/bootvol/jail/program/__init__.py`: `restrict_files(reads,
    said.get("write", []), families)` -> `pass`
    Break: `src/bootvol/jail/program/__init__.py`: `restrict_calls(families, aio="aio" in said)` ->
    `pass`
    Break: `src/bootvol/jail/program/calls.py`: `*(() if aio else (_AIO,))` -> `*()`
    Break: `src/bootvol/jail/program/calls.py`: `sync syncfs` -> `vhangup`
    Break: `src/bootvol/jail/program/calls.py`:
    `calls.refuse("clone", (0, _MASKED_EQ, _CLONE_THREAD, 0))` -> `pass`
    Break: `src/bootvol/jail/program/calls.py`:
    `calls.refuse("socketpair", (0, _EQ, UNIX, 0), (1, _MASKED_EQ, _TYPES, kind))` -> `pass`
    Break: `src/bootvol/imaging/sandbox.py`: `os.O_RDONLY` -> `os.O_RDWR`
    """
    assert attacks("container", user) == []


def test_the_attacks_are_some() -> None:
    """The same attacks succeed in a program without confinement."""
    if os.geteuid() == 0:
        assert set(attacks("free", ANOTHER)) == {each.__name__ for each in probe.ATTACKS}


@ensureDeferred
async def test_where_the_kernel_cannot_confine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a kernel reads no containers unless the operator allows it.

    Break: `src/bootvol/jail/__init__.py`: `if lacking is not None:` -> `if False:`
    """

    def landlock() -> int:
        raise Lacking("the kernel has no Landlock")

    monkeypatch.setattr("bootvol.jail.program.landlock", landlock)
    with pytest.raises(ConverterMissing, match=r"confined here: the kernel has no Landlock\.$"):
        await Sandbox(reactor, 2**30, Jail()).run(["true"], 10)
    assert (await Sandbox(reactor, 2**30, Jail(required=False)).run(["true"], 10)).code == 0


@ensureDeferred
async def test_threads_do_not_take_the_memory_of_the_image(tmp_path: Path) -> None:
    """With the smallest allowed memory, reading has many waiting threads."""
    sandbox = Sandbox(reactor, 2**28, Jail())
    image = tmp_path / "image"
    image.write_bytes(GOOD["qcow2-snapshots"][1](tmp_path))
    with image.open("rb") as file:
        command = ["qemu-img", "info", "--format=qcow2", "/proc/self/fd/4"]
        for _ in range(5):
            assert (await sandbox.run(command, 10, {4: file.fileno()})).code == 0


@pytest.mark.parametrize(("few", "expected"), [(True, BackendFailed), (False, ImageBomb)])
@ensureDeferred
async def test_a_program_without_threads_says_nothing_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: bool, expected: type[BootvolError]
) -> None:
    monkeypatch.setattr("bootvol.imaging.sandbox.few_threads", lambda: few)
    image = tmp_path / "image"
    image.write_bytes(qcow2(tmp_path))

    def bounds(**words: Any) -> Bounds:
        # Of the user's limits, only those of the program matter.
        return Bounds(**{**words, "limits": {**words["limits"], "NPROC": 1}})

    monkeypatch.setattr("bootvol.imaging.sandbox.Bounds", bounds)
    limited = ["qemu-img", "info", "/proc/self/fd/4"]
    with image.open("rb") as file, pytest.raises(expected) as raised:
        await Sandbox(reactor, 2**30, Jail()).run(limited, 10, {4: file.fileno()})
    assert bool(short_of(raised.value)) == few


@pytest.mark.parametrize(("kills", "expected"), [(4, BackendFailed), (3, ImageBomb)])
@ensureDeferred
async def test_a_program_that_the_system_killed_says_nothing_of_the_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: Sandbox,
    kills: int,
    expected: type[BootvolError],
) -> None:
    """If the machine ran out of memory, the image's limit was not the cause."""
    monkeypatch.setattr(headroom, "_PROC", tmp_path)
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    program = sandbox.start(["sleep", "60"], 10)
    (tmp_path / "vmstat").write_text(f"nr_free_pages 1\noom_kill {kills}\n")
    program.kill()
    with pytest.raises(expected):
        (await program.end()).check_spent()


async def opened(folder: Path, sandbox: Sandbox, threads: Threads) -> BootvolError:
    """Open a good image; return the reason of the failure."""
    image = folder / "image"
    image.write_bytes(qcow2(folder))
    with image.open("rb") as file:
        async with AsyncExitStack() as stack:
            with pytest.raises(BootvolError) as failed:
                await Containers(sandbox, threads).open("qcow2", file.fileno(), GIB, stack)
    return failed.value


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs that come before the system's."""
    # The folder must be readable for other users.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder
    shutil.rmtree(folder)


_INFO = '{"virtual-size": 1048576}'


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ("[]", ""),
        ("1", ""),
        ("{}", ""),
        ("[" * 100_000, ""),
        ('{"virtual-size": "1"}', ""),
        ('{"virtual-size": 1, "format-specific": []}', ""),
        ('{"virtual-size": 1, "format-specific": {"data": {"extents": {"a": 1}}}}', ""),
        (_INFO, '{"length": ' + "9" * 5000 + ', "data": true, "offset": 1}'),
        (_INFO, '{"length": 1, "data": true, "offset": ' + "9" * 5000 + "}"),
        (_INFO, '{"length": 1, "data": true, "offset": ' + "9" * 19 + "}"),
    ],
    ids=range(10),
)
@ensureDeferred
async def test_whatever_a_program_says_of_an_image_is_used_or_named(
    sandbox: Sandbox, threads: Threads, tmp_path: Path, programs: Path, info: str, found: str
) -> None:
    """An image that has taken over its reader causes no defect.

    Break: `src/bootvol/imaging/containers.py`: `except (AttributeError, KeyError, TypeError):` ->
    `except AttributeError:`.
    Break: `src/bootvol/imaging/containers.py`: `"length": (\\d{1,19}),` -> `"length": (\\d+),`.
    """
    image = tmp_path / "image"
    image.write_bytes(qcow2(tmp_path))
    said = {"info": info, "check": "", "map": f"{found}\n"}
    reader = programs / "qemu-img"
    reader.write_text(f"#!{PYTHON} -IS\nimport sys\nsys.stdout.write({said!r}[sys.argv[1]])\n")
    reader.chmod(0o755)
    with image.open("rb") as file, suppress(ImportFailed):
        async with AsyncExitStack() as stack:
            await Containers(sandbox, threads).open("qcow2", file.fileno(), GIB, stack)


@ensureDeferred
async def test_servers_that_fail(
    sandbox: Sandbox,
    threads: Threads,
    tmp_path: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "_GRACE", 0.2)
    monkeypatch.setattr(containers, "_FURTHER", 1)
    server = programs / "qemu-nbd"
    speaking = (
        f"exec {PYTHON} -c 'import socket, time\n"
        'client = socket.socket(fileno=3).accept()[0]; client.sendall(b"x" * 100); time.sleep(60)\''
    )
    for does, silence, kind, text in (
        ("echo qemu-nbd: it is broken >&2; exit 1", LIMIT, ImageCorrupt, "read: it is broken"),
        (speaking, LIMIT, ImageCorrupt, "cannot be read: no greeting"),
        # Nothing is wrong with the image where the server waits: for the disk of the spool.
        ("exec sleep 600", 1, SpoolSilent, "does not answer"),
    ):
        monkeypatch.setattr(containers, "_SILENCE", silence)
        server.write_text(f"#!/bin/sh\n{does}\n")
        server.chmod(0o755)
        error = await opened(tmp_path, sandbox, threads)
        assert type(error) is kind
        assert text in error.message
    ticking = count(step=1000)
    monkeypatch.setattr(Program, "cpu_seconds", property(lambda _: float(next(ticking))))
    assert type(await opened(tmp_path, sandbox, threads)) is ImageBomb


@pytest.mark.parametrize("silent", [1, 2])
@ensureDeferred
async def test_a_spool_that_hangs_for_a_while(
    sandbox: Sandbox,
    threads: Threads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    silent: int,
) -> None:
    """Another server continues where a silent one stopped.

    Break: `src/bootvol/imaging/containers.py`: `_FURTHER: Final = 5` -> `_FURTHER: Final = 0`.
    """
    monkeypatch.setattr(containers, "_SILENCE", 1)
    left = [silent]
    start = sandbox.start

    def hanging(command: Sequence[str], *rest: Any, **named: Any) -> Program:
        if command[0] == "qemu-nbd" and left[0]:
            left[0] -= 1
            command = ["sleep", "600"]
        elif command[0] == "qemu-nbd":
            monkeypatch.setattr(containers, "_SILENCE", LIMIT)
        return start(command, *rest, **named)

    monkeypatch.setattr(sandbox, "start", hanging)
    image = tmp_path / "image"
    image.write_bytes(qcow2(tmp_path))
    with image.open("rb") as file:
        async with AsyncExitStack() as stack:
            stream = await Containers(sandbox, threads).open("qcow2", file.fileno(), GIB, stack)
            buffer = bytearray(65536)
            assert await stream.read_into(memoryview(buffer)) == len(buffer)
    assert left == [0]


@ensureDeferred
async def test_the_time_that_a_program_computes(sandbox: Sandbox) -> None:
    program = sandbox.start(["sh", "-c", "while :; do :; done"], 60)
    await until(lambda: program.cpu_seconds)
    program.kill()
    await program.end()
    assert program.cpu_seconds == 0


@ensureDeferred
async def test_where_no_socket_can_be_made(
    sandbox: Sandbox, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    error = await opened(tmp_path, sandbox, threads)
    assert type(error) is BackendFailed
    assert error.message.startswith("No socket can be made to read the image: ")
