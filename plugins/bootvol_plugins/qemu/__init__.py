"""Hypervisor ``qemu``: each server is a process of QEMU on the daemon's machine."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bootvol import checks, private, reading
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import HypervisorPlugin, IHypervisor, PluginContext
from bootvol_plugins.qemu.options import QemuOptions

#: The machine of servers (machine.py), as ``qemu-system-x86_64 -machine help`` lists the machine.
_MACHINE: Final = b"pc"
#: Seconds for that list.
_PATIENCE: Final = 8.0


def _make(options: QemuOptions, context: PluginContext) -> IHypervisor:
    """Make the hypervisor.  Blocks on the disk: the reactor does not run yet.

    :raises ConfigurationError: if the directory does not exist and cannot be made, or if others may
        write to the directory.
    """
    from bootvol_plugins.qemu.hypervisor import QemuHypervisor

    try:
        # A user who may put a server's folder there controls the server's QEMU.
        private.make("hypervisor.directory", options.directory)
    except OSError as error:
        raise ConfigurationError(
            f"hypervisor: directory {options.directory} cannot be used: {error.strerror}"
        ) from error
    return QemuHypervisor(context.name, options, context)


def _check(options: QemuOptions) -> Iterator[Mistake]:
    yield from checks.folder("directory", options.directory)
    missing = list(checks.program("binary", options.binary, "qemu-system-x86"))
    yield from missing
    if not missing:
        yield from _check_binary(options.binary)
    if options.accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        fault = "the daemon's user cannot open /dev/kvm"
        remedy = "Add the user to the group kvm, or set accel to tcg."
        yield Mistake("accel", options.accel, fault, remedy)
    if options.tls is not None:
        yield from _check_tls(options.tls)


def _check_binary(binary: str) -> Iterator[Mistake]:
    """Check that a program is QEMU, and has the machine that servers get."""
    try:
        answer = subprocess.run(  # noqa: S603 - the operator names the program
            [binary, "-machine", "help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
        machines = [line.split(b" ")[0] for line in answer.stdout.splitlines()]
    except subprocess.TimeoutExpired:
        # The machine is busy, which is not a mistake of the operator.
        return
    except OSError:
        machines = []
    if _MACHINE not in machines:
        fault = "the program is not a QEMU that emulates PCs"
        yield Mistake("binary", binary, fault, "Name qemu-system-x86_64.")


def _check_tls(folder: Path) -> Iterator[Mistake]:
    found = list(checks.authorities("tls", folder / "ca-cert.pem"))
    yield from found
    try:
        for name in ("client-cert.pem", "client-key.pem"):
            reading.check(folder / name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    except OSError as error:
        fault = f"client-cert.pem and client-key.pem cannot be used: {error.strerror or error}"
        yield Mistake("tls", folder, fault, "Put a certificate and its key there.")
        return
    if not found:
        yield from checks.credentials("tls", folder, "client")


PLUGIN = HypervisorPlugin(QemuOptions, _make, _check)
