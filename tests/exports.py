"""Exports for tests: folders, clients and certificates."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import trustme

from bootvol.exports.records import Records
from bootvol.processes import Process
from bootvol.tables import ExportsTable, TlsExportsTable
from tests.processes import run
from tests.waiting import LIMIT

HOST: Final = "127.0.0.1"
GREETING: Final = b"NBDMAGICIHAVEOPT"


def unix(folder: Path) -> ExportsTable:
    """Return the settings of exports by Unix sockets."""
    return ExportsTable(by="unix", directory=folder / "e")


def tls(folder: Path, ports: Sequence[int]) -> TlsExportsTable:
    """Return the settings of exports by TLS, with certificates for the server and its clients."""
    if not (folder / "pki").exists():
        credentials(folder / "pki")
    return TlsExportsTable(
        by="tls", directory=folder / "e", host=HOST, ports=list(ports), credentials=folder / "pki"
    )


def credentials(folder: Path) -> None:
    """Make an authority and its certificates, under the names that QEMU's programs look for."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca-cert.pem")
    for whose in ("server", "client"):
        issued = authority.issue_cert(HOST, common_name=whose)
        issued.cert_chain_pems[0].write_to_path(folder / f"{whose}-cert.pem")
        issued.private_key_pem.write_to_path(folder / f"{whose}-key.pem")
        (folder / f"{whose}-key.pem").chmod(0o600)


def server(folder: Path, name: str) -> Process:
    """Return the process that serves an export."""
    record = Records(folder / "e").read(name)
    assert record is not None
    return record.process


def image(address: str, pki: Path | None = None) -> list[str]:
    """Return qemu-io's arguments to reach an export.

    :param pki: the folder with the client's certificate.
    """
    parts = urlsplit(address)
    if parts.scheme == "nbd+unix":
        return ["-f", "raw", address]
    options = f"driver=nbd,host={parts.hostname},port={parts.port},export={parts.path[1:]}"
    if pki is None:
        return ["--image-opts", options]
    shown = f"tls-creds-x509,id=tls,endpoint=client,dir={pki}"
    return ["--object", shown, "--image-opts", f"{options},tls-creds=tls"]


def qemu_io(
    where: Sequence[str], *commands: str, good: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run qemu-io on the target that the arguments ``where`` name.

    :param good: True if all commands must succeed; False if at least one must fail.
    """
    ran = run(["qemu-io", *where, *(part for each in commands for part in ("-c", each))])
    wrong = ran.returncode or "failed" in ran.stdout or "error" in ran.stdout
    assert bool(wrong) is not good, ran
    return ran


class Guest:
    """A client that stays connected: a running qemu-io."""

    def __init__(self, where: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            ["qemu-io", *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert "ops" in self.ask("read 0 4k")

    def ask(self, command: str) -> str:
        """Return the first line of the answer to a command."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\n")
        stdin.flush()
        line = stdout.readline().removeprefix("qemu-io> ")
        return line + (stdout.readline() if line.startswith("read ") and "bytes" in line else "")

    def leave(self) -> None:
        """Kill the client."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def guest(where: Sequence[str]) -> Iterator[Guest]:
    """Keep a client connected until the block ends."""
    client = Guest(where)
    try:
        yield client
    finally:
        client.leave()


def connect(address: str) -> socket.socket:
    """Connect to an export, without reading or writing."""
    parts = urlsplit(address)
    with ExitStack() as stack:
        if parts.scheme == "nbd+unix":
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(parse_qs(parts.query)["socket"][0])
        else:
            sock = stack.enter_context(socket.create_connection((parts.hostname, parts.port)))
        sock.settimeout(LIMIT)
        stack.pop_all()
    return sock


def waits(sock: socket.socket) -> bool:
    """Return whether a connection has nothing to read."""
    return not select.select([sock], [], [], 0)[0]


@contextmanager
def machine(path: str) -> Iterator[None]:
    """Keep a stopped machine with a volume as its disk until the block ends.

    :raises AssertionError: if the machine does not start, with its output.
    """
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S"),
            *("-drive", f"file={path},format=raw,if=virtio", "-qmp", "stdio"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        # QEMU greets early. It answers a command only when the disk is open.
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        process.stdin.flush()
        said = [process.stdout.readline(), process.stdout.readline()]
        assert said[1].startswith(b'{"return"'), said
        yield
    finally:
        process.kill()
        process.communicate()


def holders(path: Path) -> list[str]:
    """Return all descriptors, of all processes, that refer to the file."""
    found = []
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if each.samefile(path):
                found.append(str(each))
        except OSError:
            continue
    return found
