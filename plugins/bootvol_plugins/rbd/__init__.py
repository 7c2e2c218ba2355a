"""The ``rbd`` backend: each volume is an image in a pool of a Ceph cluster."""

from __future__ import annotations

from collections.abc import Iterator

from bootvol import checks, reading
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, IBlockBackend, PluginContext
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

    for key, path in (("conf", options.conf), ("keyring", options.keyring)):
        if path is not None:
            yield from checks.file(key, path)
    try:
        load()
    except ConfigurationError as error:
        remedy = "Install the bindings: apt-get install python3-rbd python3-rados"
        yield Mistake("plugin", "rbd", str(error), remedy)


PLUGIN = BackendPlugin(RbdOptions, _make, _check)
