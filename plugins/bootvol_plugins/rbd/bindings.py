"""Loads Ceph's Python bindings: Debian's, since there are none on PyPI."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Final

import attrs

from bootvol.errors import ConfigurationError

#: Where Debian and Ubuntu keep them.  Never to be put into ``sys.path``: all else that lies there
#: would come before, or instead of, what the environment has.
_DEBIAN: Final = "/usr/lib/python3/dist-packages"


@attrs.frozen
class Bindings:
    """The two modules."""

    rados: Any
    rbd: Any


def load(folder: str = _DEBIAN) -> Bindings:
    """Return the bindings: those of the environment if it has any, else those of the system.

    :param folder: where the system's are.
    :raises ConfigurationError: there are none, or they are for another Python.
    """
    # The one imports the other.
    return Bindings(rados=_module("rados", folder), rbd=_module("rbd", folder))


def _module(name: str, folder: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = PathFinder.find_spec(name) or PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ConfigurationError(
            f"plugin rbd: Python {version} has no module {name}. Install Debian's python3-rbd and"
            " python3-rados, and run bootvol on the python3 of the same release: they are made for"
            " no other."
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
