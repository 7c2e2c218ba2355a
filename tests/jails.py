"""Daemons of root and of another user. :mod:`tests.probe` attacks from their confined programs.

``python -m tests.jails KIND FOLDER UID`` runs such a daemon's process. The process has targets for
an attacker, runs the probe instead of a program, and prints the probe's report.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from twisted.internet import task
from twisted.internet.defer import Deferred

from bootvol.errors import ExportFailed, HypervisorFailed
from bootvol.exports.exports import Exports
from bootvol.exports.listeners import make
from bootvol.imaging.sandbox import Sandbox
from bootvol.jail import Jail, program
from bootvol.model import ConnectionInfo
from bootvol.tables import ExportsTable as Table
from bootvol.threads import Threads
from bootvol_plugins.http import signatures
from bootvol_plugins.http.signatures import Keyring
from tests import probe
from tests.machines import hypervisor, machine, server_name
from tests.processes import run

ROOT, ANOTHER = 0, 54321
#: An interpreter that every user may run.
PYTHON: Final = "/usr/bin/python3"
_SAID: Final = re.compile(r"done=(\{.*?\})")
#: The name of an export that is not the probe's.
BESIDE: Final = "beside"
#: From linux/prctl.h.
_PR_SET_DUMPABLE: Final = 4
_MIB: Final = 1024 * 1024


def attacks(kind: str, user: int) -> list[str]:
    """Make a daemon run the probe instead of a program; return the successful attacks.

    :param kind: the kind of the program, a key of :data:`KINDS`.
    :param user: the daemon's user id.
    """
    with tempfile.TemporaryDirectory(prefix="bootvol", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        ran = run([sys.executable, "-m", "tests.jails", kind, folder, str(user)])
    found = _SAID.search(ran.stdout)
    assert found is not None, ran
    said = json.loads(found[1].replace("\\", ""))
    assert said["of"] > 30
    done: list[str] = said["done"]
    return done


# --- the daemon's process -------------------------------------------------------------------------


@contextmanager
def world(folder: Path) -> Iterator[dict[str, Any]]:
    """Make the targets of an attacker, owned by the current user of this process."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in ("identity.key", "bootvol.sqlite", "twistd.conf", "volume", "spare", "spare.old"):
        (private / name).write_bytes(b"secret" * 1000)
        (private / name).chmod(0o600)
    with ExitStack() as stack:
        path, abstract = private / "qmp", f"bootvol-{os.getpid()}"
        for address in (str(path), f"\0{abstract}"):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
        # As open to all as /dev/log.
        log = folder / "log"
        stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(log))
        log.chmod(0o666)
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        yield {
            "pid": os.getpid(),
            "folder": str(private),
            "secrets": [
                str(private / each) for each in ("identity.key", "bootvol.sqlite", "twistd.conf")
            ],
            "volume": str(private / "volume"),
            "spare": str(private / "spare"),
            "socket": str(path),
            "beside": BESIDE,
            "log": str(log),
            "abstract": abstract,
            "port": port,
        }


def script(path: Path, found: dict[str, Any]) -> None:
    """Write the probe as a program that everybody may run."""
    text = Path(probe.__file__).read_text()
    line = "WORLD: dict[str, Any] = {}"
    assert line in text
    text = text.replace(line, f"WORLD = json.loads({json.dumps(found)!r})")
    path.write_text(f"#!{PYTHON} -IS\n{text}\n\nmain()\n")
    path.chmod(0o755)


async def _free(reactor: Any, folder: Path) -> str:
    """Run the probe without confinement, with a file and a folder of sockets open."""
    beside = make(Table(by="unix", directory=folder / "e")).listen(BESIDE, None, ())
    sockets = os.open(folder / "e" / "s", os.O_PATH)
    try:
        with (folder / "private" / "image").open("w+b") as file:
            file.truncate(_MIB)
            return run(["probe"], files=[file.fileno(), sockets]).stderr
    finally:
        os.close(sockets)
        beside.close()


async def _container(reactor: Any, folder: Path) -> str:
    """Run the probe as a reader of an image that the daemon has open for writing."""
    with (folder / "private" / "image").open("w+b") as file:
        file.truncate(_MIB)
        os.fchmod(file.fileno(), 0o644)
        ended = await Sandbox(reactor, 2**30, Jail()).run(["probe"], 60, {4: file.fileno()})
    return ended.err


async def _signature(reactor: Any, folder: Path) -> str:
    """Run the probe as the reader of a signed list."""
    (folder / "bin" / "probe").rename(folder / "bin" / "gpgv")
    keys = folder / "keys"
    # The head of a public key (RFC 9580, section 4.2).
    keys.write_bytes(b"\x99")
    said: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "_check", said.append)
        Keyring(keys, Jail()).verify(b"text", b"signature")
    return said[0].decode()


async def _export(reactor: Any, folder: Path) -> str:
    """Run the probe as the server of a volume."""
    volume = folder / "private" / "served"
    volume.write_bytes(bytes(_MIB))
    volume.chmod(0o600)
    (folder / "bin" / "probe").rename(folder / "bin" / "qemu-nbd")
    threads = Threads(reactor, "test", 2)
    threads.start()
    table = Table(by="unix", directory=folder / "e")
    with pytest.raises(ExportFailed) as failed:
        await Exports(table, threads, reactor, Jail()).open(
            "volume-1", ConnectionInfo("file", str(volume))
        )
    threads.stop()
    return failed.value.message


async def _guest(reactor: Any, folder: Path) -> str:
    """Run the probe as the QEMU of a server whose disk is a file."""
    disk = folder / "private" / "disk"
    disk.write_bytes(bytes(_MIB))
    disk.chmod(0o600)
    return await _hosted(reactor, folder, ConnectionInfo("file", str(disk)))


async def _served(reactor: Any, folder: Path) -> str:
    """Run the probe as the QEMU of a server with an exported disk, beside another export."""
    place = make(Table(by="unix", directory=folder / "e"))
    mine, beside = (place.listen(name, None, ()) for name in ("mine", BESIDE))
    try:
        return await _hosted(reactor, folder, ConnectionInfo("nbd", mine.address))
    finally:
        mine.close()
        beside.close()


async def _image(reactor: Any, folder: Path) -> str:
    """Run the probe as the QEMU of a server whose disk is an image of Ceph."""
    conf, keyring = (folder / "private" / name for name in ("ceph.conf", "keyring"))
    conf.write_text("[global]\nmon_host = 127.0.0.1\n")
    keyring.write_text("[client.ann]\nkey = ANN==\n")
    address = f"rbd:pool/image:id=ann:conf={conf}:keyring={keyring}"
    return await _hosted(reactor, folder, ConnectionInfo("rbd", address))


async def _hosted(reactor: Any, folder: Path, disk: ConnectionInfo) -> str:
    threads = Threads(reactor, "test", 2)
    threads.start()
    with pytest.raises(HypervisorFailed) as failed:
        await hypervisor(folder, threads, binary="probe").start(server_name(), machine(disk))
    threads.stop()
    return failed.value.message


KINDS: Final[dict[str, Callable[[Any, Path], Awaitable[str]]]] = {
    "free": _free,
    "container": _container,
    "signature": _signature,
    "export": _export,
    "guest": _guest,
    "served": _served,
    "image": _image,
}


def main(kind: str, folder: Path, user: int) -> None:
    """Run the daemon."""
    # As daemons do.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bin_ = folder / "bin"
    shutil.copytree(Path(program.__file__).parent, folder / "jail" / "program")
    program.__file__ = str(folder / "jail" / "program" / "__init__.py")
    sys.executable = PYTHON
    bin_.mkdir()
    (folder / "home").mkdir()
    for each in (bin_, folder / "home"):
        os.chown(each, user, user)
    os.chown(folder, user, user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # The system hides a process that changed its user from that user. A real daemon is not hidden.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.environ["PATH"] = f"{bin_}:{os.environ['PATH']}"

    async def work(reactor: Any) -> None:
        with world(folder) as found:
            script(bin_ / "probe", found)
            print(await KINDS[kind](reactor, folder), flush=True)

    task.react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
