"""The system's limits on threads and memory of the daemon and its programs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: The most threads of two QEMU programs, and some threads for the daemon.
_FEW: Final = 160
_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")


def few_threads() -> bool:
    """Return whether a program may have ended for lack of a thread.  Blocks, briefly.

    After its end, the threads of the program no longer count.  So a few free threads now mean that
    the program may have found none.
    """
    return any(most - used < _FEW for used, most in _limits())


def killed_for_memory() -> int:
    """Return how often the system has killed a process for lack of memory.  Blocks, briefly.

    The count includes kills for the memory limit of a control group, and kills of any process.  If
    the system does not tell, the result is always 0.
    """
    with suppress(OSError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _limits() -> Iterator[tuple[int, int]]:
    """Yield the number of threads and the limit, for each limit."""
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # A root daemon runs its programs as users of their own.
    if most != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield _threads_of(os.geteuid()), most
    for folder in _control_groups():
        # Without a limit, the file says "max".
        with suppress(OSError, ValueError):
            used, most = (int((folder / f"pids.{each}").read_text()) for each in ("current", "max"))
            yield used, most


def _threads_of(user: int) -> int:
    count = 0
    for process in _PROC.glob("[0-9]*"):
        # Many processes have ended since the listing.
        with suppress(OSError):
            if process.stat().st_uid == user:
                count += len(os.listdir(process / "task"))
    return count


def _control_groups() -> Iterator[Path]:
    """Yield the groups that may limit the number of processes (cgroups(7)), up to the root."""
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "pids"):
                folder = _GROUPS / controllers / path.lstrip("/")
                while folder.is_relative_to(_GROUPS):
                    yield folder
                    folder = folder.parent
