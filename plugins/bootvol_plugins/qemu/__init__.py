"""Hypervisor ``qemu``: each server is a process of QEMU on the daemon's machine."""

from __future__ import annotations

from bootvol.errors import ConfigurationError
from bootvol.interfaces import HypervisorPlugin, IHypervisor, PluginContext
from bootvol_plugins.qemu.options import QemuOptions


def _make(options: QemuOptions, context: PluginContext) -> IHypervisor:
    """Blocks on the disk: the reactor does not run yet.

    :raises ConfigurationError: there is no such directory, and it cannot be made.
    """
    from bootvol_plugins.qemu.hypervisor import QemuHypervisor

    try:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"hypervisor: directory {options.directory} cannot be used: {error.strerror}"
        ) from error
    return QemuHypervisor(context.name, options, context)


PLUGIN = HypervisorPlugin(QemuOptions, _make)
