"""The log file of the daemon."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.logger import ILogObserver

from bootvol import hangup
from bootvol.hangup import TwistdLog


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
def no_descriptors() -> Iterator[None]:
    """Let nothing be opened until the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
    """However often that is tried, when the file is full and at SIGHUP; old files stay."""
    monkeypatch.setattr(hangup, "LARGEST", 100)
    path = tmp_path / "log"
    with observing(path) as (log, observer):
        for _ in range(2):
            observer(line("x" * 100))
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1"]
        with no_descriptors():
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
