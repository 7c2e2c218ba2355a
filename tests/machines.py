"""Shared helpers of the tests of QEMU.

``python -m tests.machines FOLDER SERVER DISK`` runs a daemon that starts one server, and then stays
until it is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

from twisted.internet.defer import Deferred

from bootvol.interfaces import PluginContext
from bootvol.model import ConnectionInfo, Disk, Machine
from bootvol.threads import Threads
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from bootvol_plugins.qemu.options import QemuOptions
from tests.daemons import reactor
from tests.waiting import LONG_LIMIT, until

MIB = 1024 * 1024


def server_name() -> str:
    """Return a name that no other server on this machine has."""
    return f"server-{uuid4()}"


def options(folder: Path, **more: object) -> QemuOptions:
    """Return the plugin's settings, with its directory in a folder."""
    directory = folder / "servers"
    directory.mkdir(exist_ok=True)
    return QemuOptions.model_validate({"directory": directory, **more})


def hypervisor(folder: Path, threads: Threads, **more: object) -> QemuHypervisor:
    """Return the plugin, made as a daemon makes it."""
    return QemuHypervisor(
        "local", options(folder, **more), PluginContext(reactor, threads, "local")
    )


def disk_file(path: Path, first_line: bytes = b"") -> ConnectionInfo:
    """Make a disk, and return its connection."""
    path.write_bytes(first_line.ljust(MIB, b"\0"))
    return ConnectionInfo("file", str(path))


def machine(*disks: ConnectionInfo) -> Machine:
    """Return a server with the given disks as vda, vdb and so on."""
    named = (Disk(f"vd{letter}", disk) for letter, disk in zip("abcdef", disks, strict=False))
    return Machine(256, 1, tuple(named))


async def says(qemu: QemuHypervisor, server: str, text: str) -> None:
    """Wait until a server has written a text to its console."""
    await until(lambda: qemu.console(server, MIB), lambda said: text.encode() in said, LONG_LIMIT)


def main(folder: str, server: str, disk: str) -> None:
    """Start a server, report that, and stay."""
    threads = Threads(reactor, "daemon", 2)
    starting = hypervisor(Path(folder), threads).start(
        server, machine(ConnectionInfo("file", disk))
    )

    async def start() -> None:
        threads.start()
        print("starting", flush=True)
        await starting
        print("started", flush=True)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
