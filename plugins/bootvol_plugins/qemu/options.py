"""The operator's settings for the plugin."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bootvol.options import CredentialsFolder, Options, OwnFolder


class QemuOptions(Options):
    """``[hypervisor]`` of this plugin."""

    directory: OwnFolder
    """Holds a folder for each server; on a disk of this machine."""
    binary: str = Field(default="qemu-system-x86_64", min_length=1)
    """QEMU for PCs: a name that is looked for in PATH, or a path."""
    accel: Literal["tcg", "kvm"] = "tcg"
    """``kvm`` where the machine has it; ``tcg`` emulates, anywhere."""
    tls: CredentialsFolder | None = None
    """The folder with ``ca-cert.pem``, and ``client-cert.pem`` and ``client-key.pem`` where servers
    of disks ask for these: see the manual of QEMU, "TLS setup".
    """
    remote_disks: bool = False
    """Each QEMU may make sockets, so that servers may be given disks by NBD and RBD while they run
    that started without such disks.
    """
    detach_timeout: float = Field(default=30.0, gt=0, le=3600)
    """How many seconds a guest may take to let go of a disk."""
    shutdown_timeout: float = Field(default=60.0, ge=0, le=3600)
    """How many seconds a guest may take to shut down before it loses its power."""
