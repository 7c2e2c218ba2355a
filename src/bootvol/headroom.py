"""What the system lets the daemon and its programs have: threads, and memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: As many threads as two of QEMU's programs have at most, and some for the daemon's own.
_FEW: Final = 160
_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")


def few_threads() -> bool:
    """Tell whether a program may have ended because it got no thread.  Blocks, briefly.

    The program has ended by then, and its threads count no more: so few that are left are as good
    as none.
    """
    return any(most - used < _FEW for used, most in _limits())


def killed_for_memory() -> int:
    """Return how often the system has killed a process since it lacked memory.  Blocks, briefly.

    That of a control group counts, too, and so does that of any other process.  Where the system
    does not tell, the answer is always 0.
    """
    with suppress(OSError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _limits() -> Iterator[tuple[int, int]]:
    """Yield how many threads there are of what is bounded, and how many there may be."""
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The programs of a daemon that is root have users of their own.
    if most != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield _threads_of(os.geteuid()), most
    for folder in _control_groups():
        # Where there is no bound, the file says "max".
        with suppress(OSError, ValueError):
            used, most = (int((folder / f"pids.{each}").read_text()) for each in ("current", "max"))
            yield used, most


def _threads_of(user: int) -> int:
    count = 0
    for process in _PROC.glob("[0-9]*"):
        # Many have ended by the time that they are looked at.
        with suppress(OSError):
            if process.stat().st_uid == user:
                count += len(os.listdir(process / "task"))
    return count


def _control_groups() -> Iterator[Path]:
    """Yield the groups that may bound the number of processes (cgroups(7)), up to the root."""
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "pids"):
                folder = _GROUPS / controllers / path.lstrip("/")
                while folder.is_relative_to(_GROUPS):
                    yield folder
                    folder = folder.parent
