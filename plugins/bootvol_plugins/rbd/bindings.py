"""Loads Ceph's Python bindings. PyPI has none, so they come from Debian."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Final

import attrs

from bootvol.errors import ConfigurationError

#: The bindings' folder on Debian and Ubuntu.  Never add the folder to ``sys.path``: its other
#: modules would come before those of the environment, or replace them.
_DEBIAN: Final = "/usr/lib/python3/dist-packages"


@attrs.frozen
class Bindings:
    """The two modules of the bindings."""

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
