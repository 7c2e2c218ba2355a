"""Tests that need LVM run inside a machine with disks of their own.

The machine is User Mode Linux: a Linux kernel as a process. The kernel sees the host's files below
its own, so the same Python runs the same tests. Only one folder keeps written files; all other
changes are lost. The machine needs root, and the packages named by ``make packages``.

Modules named ``inside_*`` are collected only there.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.waiting import LONG_LIMIT

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parent.parent
_MEMORY: Final = "2G"
#: The machine's disks, /dev/ubda and so on; the files are sparse.
_DISKS: Final = ("3300M", "3G")


def run(folder: Path, command: list[str | Path], seconds: int) -> subprocess.CompletedProcess[str]:
    """Boot the machine, run a command as root, and turn the machine off. Blocks.

    :param folder: a folder of the host, with the same path in the machine. Files written elsewhere
        are lost.
    :param seconds: time limit for the whole run.
    :raises AssertionError: if the machine did not run the command; the message has the kernel's
        output.
    """
    control = folder / "control"
    (control / "uml").mkdir(parents=True)
    disks = []
    for number, size in enumerate(_DISKS):
        disk = control / f"disk{number}"
        subprocess.run(["truncate", "-s", size, disk], check=True)
        disks.append(f"ubd{number}={disk}")
    words = " ".join(shlex.quote(str(word)) for word in command)
    shim = control / "extended_state.so"
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-o", shim, _HERE / "extended_state.c", "-ldl"],
        check=True,
    )
    (control / "command").write_text(f"cd {shlex.quote(str(_ROOT))}\nexec {words}\n")
    # Two processors would only alternate, which takes several times as long.
    processor = str(max(os.sched_getaffinity(0)))
    machine = [
        *("taskset", "--cpu-list", processor),
        # No process of the machine survives.
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("linux.uml", f"mem={_MEMORY}", f"uml_dir={control / 'uml'}", *disks),
        *("rootfstype=hostfs", "rootflags=/", "ro", f"init={_HERE / 'init.sh'}"),
        *("con=null", "con0=null,fd:2", "con1=null,fd:1", "ssl=null", "quiet"),
        *("panic=-1", "noreboot", f"FOLDER={folder}", f"CONTROL={control}"),
    ]
    said, log = control / "said", control / "log"
    with said.open("w") as stdout, log.open("w") as stderr:
        running = subprocess.Popen(
            machine,
            env={**os.environ, "TMPDIR": str(control), "LD_PRELOAD": str(shim)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            stderr.write(f"Not finished within {seconds} seconds.\n")
        finally:
            # With --kill-child, all processes of the machine end.
            running.kill()
            running.wait()
    out, err = (path.read_text(errors="replace") for path in (said, log))
    status = control / "status"
    assert status.exists(), f"the machine did not finish:\n{err}\n{out}"
    return subprocess.CompletedProcess(command, int(status.read_text()), out, err)


def pytest(
    folder: Path, module: str, seconds: int = 2 * LONG_LIMIT
) -> subprocess.CompletedProcess[str]:
    """Run the tests of one module in the machine."""
    options = [
        "-p",
        "no:cacheprovider",
        "--basetemp",
        "/dev/shm/inside",
        "--color=no",
        "--tb=short",
        "--durations=5",
    ]
    module_path = _HERE / f"{module}.py"
    return run(folder, [sys.executable, "-m", "pytest", *options, module_path], seconds)
