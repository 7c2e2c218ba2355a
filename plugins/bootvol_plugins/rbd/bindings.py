"""Loads Ceph's Python bindings. PyPI has none, so they come from Debian."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Final, Protocol

import attrs

from bootvol.errors import ConfigurationError
from bootvol.jsons import JsonObject

#: The bindings' folder on Debian and Ubuntu.  Never add the folder to ``sys.path``: its other
#: modules would come before those of the environment, or replace them.
_DEBIAN: Final = "/usr/lib/python3/dist-packages"


class Ioctx(Protocol):
    """A handle of a pool: the part of ``rados.Ioctx`` that the plugin uses."""

    def get_omap_keys(
        self, operation: object, after: str, most: int
    ) -> tuple[Iterable[tuple[str, bytes]], int]: ...

    def operate_read_op(self, operation: object, name: str) -> None: ...

    def write(self, name: str, data: bytes) -> object: ...

    def lock_exclusive(
        self, name: str, lock: str, cookie: str, description: str, duration: int, flags: int
    ) -> None: ...

    def remove_object(self, name: str) -> object: ...

    def close(self) -> None: ...


class Rados(Protocol):
    """A connection to a cluster: the part of ``rados.Rados`` that the plugin uses."""

    def get_fsid(self) -> str: ...

    def open_ioctx(self, pool: str) -> Ioctx: ...

    def mon_command(self, command: str, data: bytes) -> tuple[int, bytes, str]: ...

    def blocklist_add(self, address: str) -> None: ...

    def wait_for_latest_osdmap(self) -> object: ...

    def shutdown(self) -> None: ...


class Image(Protocol):
    """An open image: the part of ``rbd.Image`` that the plugin uses.  Sizes are in bytes."""

    def id(self) -> str: ...

    def old_format(self) -> bool: ...

    def size(self) -> int: ...

    def parent_info(self) -> tuple[str, str, str]: ...

    def features(self) -> int: ...

    def flags(self) -> int: ...

    def resize(self, size: int) -> None: ...

    def flatten(self, on_progress: Callable[..., int]) -> None: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, data: bytes, offset: int) -> int: ...

    def write_zeroes(self, offset: int, length: int) -> object: ...

    def flush(self) -> None: ...

    def diff_iterate(
        self,
        offset: int,
        length: int,
        from_snapshot: str | None,
        take: Callable[[int, int, bool], None],
        *,
        include_parent: bool,
        whole_object: bool,
    ) -> None: ...

    def metadata_get(self, key: str) -> str: ...

    def metadata_set(self, key: str, value: str) -> None: ...

    def create_snap(self, name: str) -> None: ...

    def remove_snap(self, name: str) -> None: ...

    def remove_snap_by_id(self, number: int) -> None: ...

    def set_snap(self, name: str | None) -> None: ...

    def set_snap_by_id(self, number: int) -> None: ...

    def is_protected_snap(self, name: str) -> bool: ...

    def unprotect_snap(self, name: str) -> None: ...

    def snap_exists(self, name: str) -> bool: ...

    def list_snaps(self) -> Iterable[JsonObject]: ...

    def list_children2(self) -> Iterable[object]: ...

    def lock_get_owners(self) -> Iterable[JsonObject]: ...

    def lock_break(self, mode: int, owner: str) -> None: ...

    def watchers_list(self) -> Iterable[JsonObject]: ...

    def close(self) -> None: ...


@attrs.frozen
class Bindings:
    """The two modules of the bindings, which have no types."""

    rados: Any
    rbd: Any


def load(folder: str = _DEBIAN) -> Bindings:
    """Return the bindings: the environment's, or else the system's.

    :param folder: the folder of the system's bindings.
    :raises ConfigurationError: if the bindings are missing, or are for another Python.
    """
    # rbd imports rados, so rados comes first.
    return Bindings(rados=_module("rados", folder), rbd=_module("rbd", folder))


def _module(name: str, folder: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = PathFinder.find_spec(name) or PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ConfigurationError(
            f"plugin rbd: Python {version} has no module {name}. Install Debian's python3-rbd and"
            " python3-rados, and run bootvol with the python3 of the same release, the only one"
            " that"
            " they support."
        )
    try:
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        sys.modules.pop(name, None)
        raise ConfigurationError(
            f"plugin rbd: {spec.origin} cannot be loaded ({error}). Install the python3-rbd and"
            " librbd1 of one release."
        ) from error
    return module
