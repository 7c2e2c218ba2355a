"""The files on the config drive of a server's guest, in version 2 of OpenStack's layout.

cloud-init and cloudbase-init read them: see "Config drives" in Nova's user guide.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Final

from bootvol.model import Server

#: The versions of the layout that guests look for. All versions hold the same files.
_VERSIONS: Final = ("2012-08-10", "2013-10-17", "latest")


def files(server: Server, zone: str) -> Mapping[str, bytes]:
    """Return the files of a server's config drive, by path.

    :param zone: the availability zone to report to the guest.
    """
    meta: dict[str, object] = {
        "uuid": server.uuid,
        "name": server.display_name,
        "hostname": hostname(server),
        "launch_index": 0,
        "availability_zone": zone,
        "project_id": server.tenant,
        "meta": dict(server.metadata),
    }
    if server.key is not None:
        meta["public_keys"] = {server.key.name: server.key.text}
        meta["keys"] = [{"name": server.key.name, "type": "ssh", "data": server.key.text}]
    found: dict[str, bytes] = {}
    for version in _VERSIONS:
        found[f"openstack/{version}/meta_data.json"] = json.dumps(meta).encode("utf-8")
        if server.user_data is not None:
            found[f"openstack/{version}/user_data"] = b64decode(server.user_data)
    found["openstack/latest/vendor_data.json"] = b"{}"
    found["openstack/latest/network_data.json"] = b'{"links": [], "networks": [], "services": []}'
    return found


def hostname(server: Server) -> str:
    """Convert a server's name to a valid host name (RFC 952, RFC 1123)."""
    words = re.sub(r"[ _]", "-", server.display_name)
    kept = re.sub(r"[^A-Za-z0-9.-]", "", words).lower().strip(".-")
    return kept[:63].rstrip(".-") or f"server-{server.uuid}"
