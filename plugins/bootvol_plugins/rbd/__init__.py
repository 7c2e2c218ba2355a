"""The ``rbd`` backend: each volume is an image in a pool of a Ceph cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bootvol import checks, reading
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, IBlockBackend, PluginContext
from bootvol_plugins.rbd.keyrings import key_in
from bootvol_plugins.rbd.options import RbdOptions


def _make(options: RbdOptions, context: PluginContext) -> IBlockBackend:
    """Load Ceph's library and make the backend. The first use of the backend connects.

    :raises ConfigurationError: if the library is missing, or a named file cannot be read.
    """
    from bootvol_plugins.rbd.backend import RbdBackend
    from bootvol_plugins.rbd.bindings import load

    for path in (options.conf, options.keyring):
        try:
            if path is not None:
                reading.check(path)
        except OSError as error:
            raise ConfigurationError(
                f"backend {context.name!r}: {path} cannot be read: {error.strerror}"
            ) from error
    return RbdBackend(context.name, options, load(), context.reactor)


def _check(options: RbdOptions) -> Iterator[Mistake]:
    from bootvol_plugins.rbd.bindings import load

    readable = True
    for key, path in (("conf", options.conf), ("keyring", options.keyring)):
        if path is not None:
            for mistake in checks.file(key, path):
                readable = False
                yield mistake
    try:
        rados = load().rados
    except ConfigurationError as error:
        remedy = "Install the bindings: apt-get install python3-rbd python3-rados"
        yield Mistake("plugin", "rbd", str(error), remedy)
        return
    if not readable:
        return
    # The daemon starts without the cluster, so these faults are not fatal.
    if options.keyring is not None:
        yield from _check_keyring(options.keyring, f"client.{options.user}")
    try:
        conf = None if options.conf is None else str(options.conf)
        # The library reads the file here, and connects later.
        client = rados.Rados(conffile=conf, rados_id=options.user, conf=options.client())
        if not client.conf_get("mon_host") and not _names_monitors(options):
            fault = "the file names no monitors"
            remedy = "Add mon_host to the file, unless the DNS names the monitors (_ceph-mon._tcp)."
            yield Mistake("conf", options.conf, fault, remedy, fatal=False)
    except rados.Error as error:
        key, value = ("monitors", options.monitors) if conf is None else ("conf", options.conf)
        fault = f"Ceph's library does not accept the value: {error}"
        yield Mistake(key, value, fault, "Name a ceph.conf of the cluster.", fatal=False)


def _names_monitors(options: RbdOptions) -> bool:
    """Return whether the file has addresses in sections of monitors, as before Nautilus."""
    content = b"" if options.conf is None else reading.content(options.conf)
    return re.search(rb"^\s*mon[ _]addr\s*=", content, re.MULTILINE) is not None


def _check_keyring(path: Path, user: str) -> Iterator[Mistake]:
    remedy = f"Write the file with `ceph auth get {user}`."
    try:
        key = key_in(path, user)
    except ValueError:
        yield Mistake("keyring", path, "the file is not a keyring of Ceph", remedy, fatal=False)
        return
    if key is None:
        yield Mistake("keyring", path, f"the file has no key of {user}", remedy, fatal=False)


PLUGIN = BackendPlugin(RbdOptions, _make, _check)
