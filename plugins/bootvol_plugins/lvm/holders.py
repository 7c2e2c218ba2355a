"""Finds processes that have ended, but still have a device open.

A thread in a call to a hanging disk cannot end.  The files of its process stay open until the disk
answers, even if the process was killed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: The state of a process that has ended (proc_pid_stat(5)).
_ENDED = "Z"


def is_left_open(number: tuple[int, int], proc: Path = Path("/proc")) -> bool:
    """Return whether a process that has ended has a block device open.  Blocks for milliseconds.

    :param number: the major and the minor number of the device.
    :param proc: the folder with the processes.
    """
    device = os.makedev(*number)
    return any(
        _has_open(thread, device)
        for process in proc.glob("[1-9]*")
        if _state(process) == _ENDED
        for thread in _threads(process)
    )


def _state(process: Path) -> str:
    with suppress(OSError, IndexError):
        return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def _threads(process: Path) -> Sequence[Path]:
    # The process may be gone by now.
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return list((process / "task").iterdir())
    return []


def _has_open(thread: Path, device: int) -> bool:
    # The thread may have ended by now.
    with suppress(OSError):
        for each in (thread / "fd").iterdir():
            with suppress(OSError):
                status = each.stat()
                if stat.S_ISBLK(status.st_mode) and status.st_rdev == device:
                    return True
    return False
