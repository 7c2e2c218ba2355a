"""The ceph.conf by which QEMU knows a Ceph cluster.  The file holds the key of one user.

Ceph's library in the daemon names the file of the key, as the library in QEMU would find the file.
:func:`configuration` itself looks nothing up in a ceph.conf.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bootvol import reading
from bootvol.errors import HypervisorFailed
from bootvol_plugins.rbd.bindings import load
from bootvol_plugins.rbd.keyrings import key_in

#: The settings in an image's address that concern the cluster.  The library takes them unchanged.
_SETTINGS: Final = ("mon_host", "keyring")


def user(said: Mapping[str, str]) -> str:
    """Return the cephx user in the address of an image, without ``client.``."""
    return said.get("id", "admin")


def configuration(said: Mapping[str, str]) -> bytes:
    """Return a ceph.conf by which QEMU reaches a cluster, without any other file.  Blocks.

    :param said: settings in the address of an image, besides the place.
    :raises HypervisorFailed: if the library does not take the operator's ceph.conf, or the keyring
        is not a keyring.
    :raises OSError: if a file cannot be read.
    """
    name, conf = user(said), said.get("conf")
    written = b"" if conf is None else reading.content(Path(conf))
    lines = [""]
    if "mon_host" in said:
        # In a file a semicolon begins a comment.
        lines += ["[global]", f"mon_host = {said['mon_host'].replace(';', ',')}"]
    # The key takes precedence over keyrings.  With an empty keyring, the library misses no file.
    lines += ["", f"[client.{name}]", "keyring = /dev/null"]
    key = _key(name, conf, {each: said[each] for each in _SETTINGS if each in said})
    if key is not None:
        lines.append(f"key = {key}")
    return written + "\n".join([*lines, ""]).encode()


def _key(name: str, conf: str | None, settings: dict[str, str]) -> str | None:
    """Return the key of a user; None without a key, as in a cluster that asks for no keys."""
    rados = load().rados
    try:
        library = rados.Rados(conffile=conf, rados_id=name, conf=settings)
        key, file, keyrings = (library.conf_get(each) for each in ("key", "keyfile", "keyring"))
    except rados.Error as error:
        raise HypervisorFailed(f"Ceph's library does not accept {conf}: {error}.") from error
    if key:
        return str(key)
    if file:
        return reading.content(Path(file)).decode("ascii", "replace").strip()
    found = next((each for each in keyrings.split(",") if each and Path(each).exists()), None)
    try:
        return None if found is None else key_in(Path(found), f"client.{name}")
    except ValueError:
        raise HypervisorFailed(f"{found} is not a keyring.") from None
