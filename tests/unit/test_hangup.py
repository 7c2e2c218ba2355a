"""The log file of the daemon."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bootvol import hangup
from bootvol.hangup import TwistdLog


def test_old_log_files_are_bounded_in_number_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangup, "LARGEST", 1000)
    monkeypatch.setattr(hangup, "KEPT", 3)
    earlier = signal.getsignal(signal.SIGUSR1)
    try:
        log = TwistdLog()
        observer = log.observer({"logfile": str(tmp_path / "log")})
        assert observer is not None
        for _ in range(100):
            observer({"log_format": "x" * 100, "log_time": 0.0, "log_level": None})
        assert log._file is not None
        log._file.close()
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["log", "log.1", "log.2", "log.3"]
    assert all(each.stat().st_size < 2000 for each in tmp_path.iterdir())
