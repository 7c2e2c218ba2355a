"""Tells hosts on the storage network how to reach images: as clients of the cluster."""

from __future__ import annotations

import json
import re
from typing import Final

from bootvol.errors import BackendFailed
from bootvol.jsons import JsonObject
from bootvol.model import RbdRoute
from bootvol_plugins.rbd.cluster import Pool
from bootvol_plugins.rbd.keyrings import key_in
from bootvol_plugins.rbd.options import RbdOptions

#: Ceph's text of an address: a host, IPv6 in brackets, the port, and perhaps a number.
_ADDRESS: Final = re.compile(r"\[?([^\]]+?)\]?:([0-9]+)(?:/[0-9]+)?")


def route(pool: Pool, options: RbdOptions, image: str) -> RbdRoute:
    """Return the route to an image.  Blocks.

    :raises BackendFailed: if the cluster does not name its monitors, or the key cannot be read.
    """
    code, answer, _ = pool.rados.mon_command(
        json.dumps({"prefix": "mon dump", "format": "json"}), b""
    )
    if code:
        raise BackendFailed(f"The cluster does not name its monitors: error {-code}.")
    secret = options.secret_uuid
    return RbdRoute(
        place="/".join(part for part in (options.pool, options.namespace, image) if part),
        monitors=monitors(json.loads(answer)),
        cluster=options.cluster,
        user=options.user,
        secret=pool.rados.get_fsid() if secret is None else str(secret),
        keyring=_keyring(options) if options.share_keyring else None,
    )


def monitors(dump: JsonObject) -> tuple[tuple[str, int], ...]:
    """Return host and port of each monitor, from Ceph's own list.

    Clients that know the second protocol ask for it themselves, so the port of the first protocol
    serves all, if the monitor has that port.
    """
    found = []
    for each in dump["mons"]:
        listed = each.get("public_addrs", {}).get("addrvec", [])
        by_protocol = {one["type"]: one["addr"] for one in listed}
        text = by_protocol.get("v1") or by_protocol.get("v2") or each["addr"]
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise BackendFailed(f"The monitor {each.get('name')} has no address.")
        found.append((match[1], int(match[2])))
    return tuple(found)


def _keyring(options: RbdOptions) -> str | None:
    """Return the text of a keyring with the user's key alone."""
    if options.keyring is None:
        return None
    user = f"client.{options.user}"
    try:
        key = key_in(options.keyring, user)
    except (OSError, ValueError) as error:
        raise BackendFailed("The keyring of the backend cannot be read.") from error
    if key is None:
        raise BackendFailed("The keyring of the backend has no key of the backend's user.")
    return f"[{user}]\n\tkey = {key}\n"
