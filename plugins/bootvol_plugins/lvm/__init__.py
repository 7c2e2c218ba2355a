"""The ``lvm`` backend: volumes are logical volumes, with their own extents or in a thin pool."""

from __future__ import annotations

from collections.abc import Iterator

from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, IBlockBackend, PluginContext
from bootvol_plugins.lvm.options import LvmOptions


def _make(options: LvmOptions, context: PluginContext) -> IBlockBackend:
    """Make the backend. Blocks on LVM's commands; the reactor does not run yet.

    :raises ConfigurationError: if LVM, the volume group or the thin pool is missing or unsuitable.
    """
    from bootvol_plugins.lvm.start import check_group, check_pool, reducing, store
    from bootvol_plugins.lvm.thick import ThickBackend
    from bootvol_plugins.lvm.thin import ThinBackend

    binary = check_group(context.name, options)
    if options.pool is None:
        there = store(context.name, binary, options.group, None)
        return ThickBackend(context, binary, options.group, there, reducing(context.name, binary))
    chunk = check_pool(context.name, binary, options.group, options.pool)
    there = store(context.name, binary, options.group, options.pool)
    reduce = reducing(context.name, binary)
    pool, limit = options.pool, options.full_percent
    return ThinBackend(context, binary, options.group, there, pool, chunk, limit, reduce)


def _check(options: LvmOptions) -> Iterator[Mistake]:
    from bootvol_plugins.lvm.start import check_group, check_pool

    key, value = "group", options.group
    try:
        binary = check_group(value, options)
        if options.pool is not None:
            key, value = "pool", options.pool
            check_pool(value, binary, options.group, options.pool)
    except ConfigurationError as error:
        yield Mistake(key, value, str(error), "See docs/backends.md, lvm.")


PLUGIN = BackendPlugin(LvmOptions, _make, _check)
