"""The log file of the daemon."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver

from bootvol import hangup
from bootvol.hangup import Hangup, TwistdLog
from tests.daemons import pause, reactor


@contextmanager
def observing(path: Path) -> Iterator[tuple[TwistdLog, ILogObserver]]:
    """Log to a file until the end of the block."""
    earlier = signal.getsignal(signal.SIGUSR1)
    log = TwistdLog()
    try:
        observer = log.observer({"logfile": str(path)})
        assert observer is not None
        yield log, observer
    finally:
        signal.signal(signal.SIGUSR1, earlier)
        assert log._file is not None
        log._file.close()


@contextmanager
def descriptors(left: int) -> Iterator[None]:
    """Limit the number of open files until the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@ensureDeferred
async def test_a_signal_ends_nothing_that_starts_or_ends() -> None:
    """Signals during the start are answered once, when the daemon runs."""
    asked: list[str] = []

    def reload() -> Deferred[None]:
        asked.append("")
        return succeed(None)

    earlier = signal.getsignal(signal.SIGHUP)
    try:
        answering = Hangup(reactor, TwistdLog())
        signal.raise_signal(signal.SIGHUP)
        answering.reload = reload
        await pause(0)
        assert len(asked) == 0
        answering.startService()
        await pause(0)
        assert len(asked) == 1
        signal.raise_signal(signal.SIGHUP)
        await pause(0)
        assert len(asked) == 2
        answering.stopService()
        signal.raise_signal(signal.SIGHUP)
        await pause(0)
        assert len(asked) == 2
    finally:
        signal.signal(signal.SIGHUP, earlier)


def line(text: str) -> dict[str, object]:
    """Return an event."""
    return {"log_format": text, "log_time": 0.0, "log_level": None}


def test_old_log_files_are_bounded_in_number_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangup, "LARGEST", 1000)
    monkeypatch.setattr(hangup, "KEPT", 3)
    with observing(tmp_path / "log") as (_, observer):
        (tmp_path / "log").chmod(0o640)
        for _ in range(100):
            observer(line("x" * 100))
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["log", "log.1", "log.2", "log.3"]
    assert all(each.stat().st_size < 2000 for each in tmp_path.iterdir())
    assert all(each.stat().st_mode & 0o777 == 0o640 for each in tmp_path.iterdir())


def test_a_log_that_cannot_be_opened_anew_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Try repeatedly, for a full file and at SIGHUP; the old files stay."""
    monkeypatch.setattr(hangup, "LARGEST", 100)
    path = tmp_path / "log"
    with observing(path) as (log, observer):
        for _ in range(2):
            observer(line("x" * 100))
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1"]
        with descriptors(0):
            for number in range(5):
                observer(line(f"rotated {number}"))
            log.reopen()
            observer(line("opened again"))
        told = path.read_text()
        assert all(f"rotated {number}" in told for number in range(5))
        assert "opened again" in told
        observer(line("later"))
        assert "later" in path.read_text()
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1", "log.2"]


def test_no_old_file_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try with one descriptor left, and with an old file that nobody can remove."""
    monkeypatch.setattr(hangup, "LARGEST", 100)
    with observing(tmp_path / "log") as (_, observer):
        for number in range(3):
            observer(line(f"{number}".ljust(100, "x")))
        with descriptors(1):
            for number in range(3, 6):
                observer(line(f"{number}".ljust(100, "x")))
        assert len(list(tmp_path.iterdir())) == 6
        (tmp_path / f"log.{hangup.KEPT}").mkdir()
        for number in range(6, 9):
            observer(line(f"{number}".ljust(100, "x")))
        (tmp_path / f"log.{hangup.KEPT}").rmdir()
        observer(line("9".ljust(100, "x")))
        told = "".join(each.read_text() for each in tmp_path.iterdir())
    assert all(f"{number}xx" in told for number in range(10))


def test_a_device_is_no_log_file_to_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangup, "LARGEST", 100)
    # A link is used, so that a fault would not harm this machine.
    (tmp_path / "log").symlink_to("/dev/null")
    with observing(tmp_path / "log") as (log, observer):
        for number in range(5):
            observer(line(f"{number}".ljust(100, "x")))
        log.reopen()
        observer(line("more".ljust(100, "x")))
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").is_char_device()
