"""The settings of the hypervisor ``qemu``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bootvol.options import CredentialsFolder, Options, OwnFolder


class QemuOptions(Options):
    """The table ``[hypervisor]`` of this plugin."""

    directory: OwnFolder
    """The directory of the servers, on a local disk.  Each server has a folder there."""
    binary: str = Field(default="qemu-system-x86_64", min_length=1)
    """QEMU for PCs: a path, or a name to find in PATH."""
    accel: Literal["tcg", "kvm"] = "tcg"
    """``kvm`` on a machine with KVM.  ``tcg`` emulates on any machine."""
    tls: CredentialsFolder | None = None
    """The folder with ``ca-cert.pem``, for disks that another machine serves.  If disk servers
    demand a client certificate, also ``client-cert.pem`` and ``client-key.pem``: see QEMU's manual,
    "TLS setup".
    """
    remote_disks: bool = False
    """Whether every QEMU may make sockets.  Otherwise a server that started without NBD and RBD
    disks can get no such disks while the server runs.
    """
    detach_timeout: float = Field(default=30.0, gt=0, le=3600)
    """Longest time in seconds for a guest to release a disk."""
    shutdown_timeout: float = Field(default=60.0, ge=0, le=3600)
    """Longest time in seconds for a guest to shut down.  Then the server loses its power."""
