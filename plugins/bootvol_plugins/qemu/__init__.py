"""Hypervisor ``qemu``: each server is a process of QEMU on the daemon's machine."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import HypervisorPlugin, IHypervisor, PluginContext
from bootvol_plugins.qemu.options import QemuOptions


def _make(options: QemuOptions, context: PluginContext) -> IHypervisor:
    """Blocks on the disk: the reactor does not run yet.

    :raises ConfigurationError: there is no such directory, and it cannot be made, or others may
        write to it.
    """
    from bootvol_plugins.qemu.hypervisor import QemuHypervisor

    try:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = options.directory.stat()
    except OSError as error:
        raise ConfigurationError(
            f"hypervisor: directory {options.directory} cannot be used: {error.strerror}"
        ) from error
    if _is_open_to_others(found):
        raise ConfigurationError(
            f"hypervisor: directory {options.directory} is open to other users. Give it to the"
            " daemon's, let nobody else write to it (chown, chmod 700), or name another one."
        )
    return QemuHypervisor(context.name, options, context)


def _is_open_to_others(found: os.stat_result) -> bool:
    """Tell whether others may put a server's folder there, and so tell its QEMU what to do."""
    return found.st_uid != os.geteuid() or bool(stat.S_IMODE(found.st_mode) & 0o022)


def _check(options: QemuOptions) -> Iterator[Mistake]:
    yield from checks.folder("directory", options.directory)
    if options.directory.is_dir() and _is_open_to_others(options.directory.stat()):
        remedy = "Give the folder to the daemon's user alone (chown, chmod 700)."
        yield Mistake("directory", options.directory, "the folder is open to other users", remedy)
    yield from checks.program("binary", options.binary, "qemu-system-x86")
    if options.accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        fault = "the daemon's user cannot open /dev/kvm"
        remedy = "Add the user to the group kvm, or set accel to tcg."
        yield Mistake("accel", options.accel, fault, remedy)
    if options.tls is not None:
        yield from _check_tls(options.tls)


def _check_tls(folder: Path) -> Iterator[Mistake]:
    found = list(checks.authorities("tls", folder / "ca-cert.pem"))
    yield from found
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    except OSError as error:
        fault = f"client-cert.pem and client-key.pem cannot be used: {error.strerror or error}"
        yield Mistake("tls", folder, fault, "Put a certificate and the key of it there.")
        return
    if not found:
        yield from checks.credentials("tls", folder, "client")


PLUGIN = HypervisorPlugin(QemuOptions, _make, _check)
