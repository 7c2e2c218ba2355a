"""Routes: how a host on the storage network reaches a volume.

:class:`.ConnectionInfo` is for hypervisors on the backend's side, which have the backend's
configuration.  A route states everything that another host needs.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class RbdRoute:
    """The route to an image of a Ceph cluster.

    :ivar place: pool, namespace if any, and image, with slashes between.
    :ivar monitors: host and port of each monitor.  A host may be an IPv6 address, without brackets.
    :ivar cluster: the cluster's name: clients look for files with this name.
    :ivar user: the Ceph user, without ``client.``.
    :ivar secret: the id of the secret with the user's key on hosts with libvirt.
    :ivar keyring: the text of a keyring with the user's key; None unless the operator hands the key
        out.  The core stores no keyring.
    """

    place: str
    monitors: tuple[tuple[str, int], ...]
    cluster: str
    user: str
    secret: str
    keyring: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class LocalRoute:
    """The route to a file or block device on the host of the volume; no other host reaches it.

    :ivar path: absolute path.
    """

    path: str


Route = RbdRoute | LocalRoute
