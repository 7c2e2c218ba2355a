"""Shortages of the process, and the waits for their end."""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from bootvol import descriptors, headroom, settings
from bootvol.errors import (
    BackendFailed,
    ConfigurationError,
    ExportFailed,
    NoSpace,
    SourceFailed,
)
from bootvol.processes import shortage_in
from bootvol.shortage import Shortage, short_of
from bootvol.threads import Threads
from tests.daemons import configuration


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """Return an error raised from another one."""
    try:
        raise error from cause
    except Exception as caught:
        return caught


def forked() -> Exception:
    """Return the error of a process that the system did not start."""

    def _fork() -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    try:
        _fork()
    except OSError as error:
        return raised(BackendFailed(), error)
    raise AssertionError


SHORT = [
    OSError(errno.EMFILE, "too many"),
    OSError(errno.ENFILE, "too many"),
    OSError(errno.ENOMEM, "no memory"),
    MemoryError(),
    RuntimeError("can't start new thread"),
    socket.gaierror(socket.EAI_MEMORY, "no memory"),
    raised(
        ExportFailed(), shortage_in("qemu: qemu_thread_create: Resource temporarily unavailable")
    ),
    raised(BackendFailed("Opening failed"), OSError(errno.EMFILE, "too many")),
    raised(SourceFailed(), ConnectError(errno.EMFILE, "too many")),
    raised(SourceFailed(), ResponseNeverReceived([Failure(OSError(errno.EMFILE, "too many"))])),
    forked(),
]
OTHERS = [
    OSError(errno.EIO, "broken"),
    BlockingIOError(errno.EAGAIN, "locked"),
    raised(NoSpace(), OSError(errno.ENOSPC, "full")),
    RuntimeError("defect"),
    raised(ExportFailed(), shortage_in("qemu-nbd: Resource temporarily unavailable")),
    BackendFailed("too many open files"),
]


@pytest.mark.parametrize("error", SHORT)
def test_what_is_a_shortage(error: Exception) -> None:
    assert short_of(error)


@pytest.mark.parametrize("error", OTHERS)
def test_what_is_none(error: Exception) -> None:
    assert short_of(error) is None


def test_a_shortage_is_told_once_and_so_is_its_end() -> None:
    clock: Any = Clock()
    shortage = Shortage(clock)
    with capturedLogs() as logs:
        for _ in range(10):
            waiting = Deferred.fromCoroutine(shortage.wait("memory"))
            clock.advance(2)
            assert waiting.called
        clock.pump([2] * 10)
    assert [each["log_level"].name for each in logs] == ["error", "info"]


@ensureDeferred
async def test_a_call_waits_for_a_thread(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failures = Thread.start, 3

    def failing(thread: Thread) -> None:
        nonlocal failures
        if thread.name.startswith("PoolThread-test") and failures:
            failures -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", failing)
    with capturedLogs() as logs:
        assert await threads.run(lambda: 7) == 7
    assert not failures
    assert [each["log_level"].name for each in logs] == ["error", "info"]


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Return a function that limits this process's descriptors until the end of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised(tmp_path: Path, limited: Callable[[int], None]) -> None:
    (tmp_path / "conf").write_text(configuration(8776))
    limited(300)
    assert descriptors.connections(settings.load(tmp_path / "conf")) == (500, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard


@pytest.mark.parametrize(("limit", "expected"), [(708, 500), (707, 499), (224, 16), (223, None)])
def test_connections_are_held_against_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, expected: int | None
) -> None:
    (tmp_path / "conf").write_text(configuration(8776))
    config = settings.load(tmp_path / "conf")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    if expected is None:
        with pytest.raises(ConfigurationError, match="Raise the limit"):
            descriptors.connections(config)
        return
    found, warning = descriptors.connections(config)
    assert found == expected
    assert (warning is None) == (expected == 500)


def test_a_real_one(limited: Callable[[int], None]) -> None:
    limited(3)
    with pytest.raises(OSError, match="Too many open files") as failed:
        socket.socket()
    assert short_of(failed.value)


_HEADROOM = """
import os, resource, sys
from bootvol.headroom import few_threads
if not os.geteuid():
    os.seteuid(61234)
_, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), hard))
print(few_threads())
"""


@pytest.mark.parametrize(("most", "few"), [("1", "True"), ("60000", "False")])
def test_few_threads_of_a_user(most: str, few: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _HEADROOM, most], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == few


@pytest.mark.parametrize(("most", "few"), [("100", True), ("500", False), ("max", False)])
def test_few_threads_of_a_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, few: bool
) -> None:
    """A control group further up may set the limit."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/system.slice/bootvol.service\n")
    (groups / "system.slice/bootvol.service").mkdir(parents=True)
    (groups / "system.slice/pids.current").write_text("90\n")
    (groups / "system.slice/pids.max").write_text(f"{most}\n")
    monkeypatch.setattr(headroom, "_PROC", proc)
    monkeypatch.setattr(headroom, "_GROUPS", groups)
    assert headroom.few_threads() == few
