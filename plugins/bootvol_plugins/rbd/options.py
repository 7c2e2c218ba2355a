"""The settings of the plugin, and their forms for Ceph's library and for QEMU."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from bootvol.options import Options, SecretFile, TrustedFile

#: Names of pools, namespaces and users that need no quoting anywhere.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]

#: The port behind an IPv4 address, a name, or an IPv6 address in brackets.
_PORT: Final = re.compile(r"^(?:[^:]+|.*\]):([0-9]{1,9})$")
_LAST_PORT: Final = 65535


class RbdOptions(Options):
    """A table ``[[backends]]`` of this plugin."""

    pool: _Name
    """The pool with the volumes.  Each volume is an image."""
    namespace: _Name | None = None
    """A namespace of the pool for the volumes."""
    conf: TrustedFile | None = None
    """The cluster's ceph.conf.  Set either ``conf`` or ``monitors``."""
    monitors: list[Annotated[str, Field(pattern=r"^[\]\[A-Za-z0-9_.:]+$")]] = Field(
        default_factory=list
    )
    """Addresses of the monitors, in the form of ``mon_host`` in a ceph.conf."""
    user: _Name = "bootvol"
    """The Ceph user, without ``client.``."""
    keyring: SecretFile | None = None
    """The file with the user's key.  The default is the file that ceph.conf or Ceph names."""
    image_pools: list[_Name] = Field(default_factory=list)
    """Pools of the same cluster with images that the backend may clone, if a source locates an
    image there.
    """
    cluster: _Name = "ceph"
    """The cluster's name on hosts of other systems, which look for files with this name."""
    secret_uuid: UUID | None = Field(default=None, strict=False)
    """The id of libvirt's secret with the user's key on hosts of other systems.  The default is the
    id of the cluster.
    """
    share_keyring: bool = False
    """Whether hosts of other systems, and so the projects, get the key in ``keyring``."""
    timeout: int = Field(default=30, ge=1, le=3600)
    """Longest time in seconds for each operation of the cluster."""
    patience: int = Field(default=45, ge=1, le=3600)
    """Seconds until an image that another client has open counts as in use.  A cluster counts a
    dead client as alive for 30 seconds (``osd_client_watch_timeout``).
    """

    @field_validator("user")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if value.startswith("client."):
            raise ValueError('leave out "client." at the beginning')
        return value

    @field_validator("monitors")
    @classmethod
    def _have_ports(cls, value: list[str]) -> list[str]:
        for each in value:
            port = _PORT.search(each)
            if port is not None and not 0 < int(port[1]) <= _LAST_PORT:
                raise ValueError(f"{each!r} has an impossible port")
        return value

    @model_validator(mode="after")
    def _can_share(self) -> Self:
        if self.share_keyring and self.keyring is None:
            raise ValueError("share_keyring needs keyring")
        return self

    @model_validator(mode="after")
    def _has_cluster(self) -> Self:
        if (self.conf is None) == (not self.monitors):
            raise ValueError("set either conf or monitors, and not both")
        return self

    def client(self) -> dict[str, str]:
        """Return the settings of Ceph's library that are not in ``conf``."""
        # The library accepts whole seconds only.
        seconds = str(self.timeout)
        found = {
            "rados_osd_op_timeout": seconds,
            "rados_mon_op_timeout": seconds,
            "client_mount_timeout": seconds,
            # With a cache, writes succeed at once, and errors appear only at the flush.
            "rbd_cache": "false",
            # Clones need no protected snapshots. The library hides the data of a deleted image
            # until the last clone is gone.
            "rbd_default_clone_format": "2",
            "rbd_move_parent_to_trash_on_remove": "true",
        }
        if self.monitors:
            found["mon_host"] = ",".join(self.monitors)
        if self.keyring is not None:
            found["keyring"] = str(self.keyring)
        return found

    def address(self, image: str) -> str:
        """Return QEMU's address of an image (the manual of qemu-system, "Ceph RBD")."""
        place = "/".join(part for part in (self.pool, self.namespace, image) if part)
        said = {"id": self.user}
        if self.conf is not None:
            said["conf"] = str(self.conf)
        if self.monitors:
            said["mon_host"] = ";".join(self.monitors)
        if self.keyring is not None:
            said["keyring"] = str(self.keyring)
        pairs = "".join(f":{key}={_escaped(value)}" for key, value in said.items())
        return f"rbd:{place}{pairs}"


def _escaped(value: str) -> str:
    for special in "\\:=@":
        value = value.replace(special, f"\\{special}")
    return value
