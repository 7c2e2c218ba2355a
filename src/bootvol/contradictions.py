"""Mistakes of the configuration in two keys together: keys that must not have the same value.

For checks of the machine, see :mod:`bootvol.machine`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bootvol.threads import StillRunning, within

#: Seconds to wait for a disk when links are resolved.
_PATIENCE: Final = 2.0


def of_folders(
    stores: Mapping[str, Path], others: Mapping[str, Path], sources: Mapping[str, Path]
) -> Iterator[str]:
    """Find folders that two purposes would share.

    Tenants can read all files of an image source.  In a shared folder, secrets or another tenant's
    volume would be images.  Two backends in one folder would take each other's volumes for strays.

    :param stores: folders by key, absolute.  Each folder needs a purpose of its own.
    :param others: folders that bootvol writes to, by key.  All of them may be one folder.
    :param sources: folders of image sources, by key.
    :returns: each mistake as one line, without the name of the configuration file.
    """
    taken: dict[str, str] = {}
    for key, path in stores.items():
        first = taken.setdefault(_same(path), key)
        if first != key:
            yield f"{key}: '{path}': {first} is the same folder. Give each key its own folder."
    for key, path in others.items():
        taken.setdefault(_same(path), key)
    for key, path in sources.items():
        if (other := taken.get(_same(path))) is not None:
            yield (
                f"{key}: '{path}': {other} is the same folder, so tenants could use its files as"
                " images. Give the images a folder of their own."
            )


def of_files(files: Mapping[str, Path], sources: Mapping[str, Path]) -> Iterator[str]:
    """Find files with secrets in the folder of an image source, where they would be images.

    :param files: absolute paths of the files, by a name for the operator.
    :param sources: folders of image sources, by key.
    :returns: each mistake as one line, without the name of the configuration file.
    """
    for key, path in sources.items():
        for name, file in files.items():
            if _same(file.parent) == _same(path):
                yield (
                    f"{key}: '{path}': {name} lies in this folder, so tenants could use that file"
                    " as an image. Give the images a folder of their own."
                )


def of_endpoints(endpoints: list[str]) -> Iterator[str]:
    """Find duplicate endpoint descriptions in the list.

    :returns: each mistake as one line, without the name of the configuration file.
    """
    for n, each in enumerate(endpoints):
        if each in endpoints[:n]:
            yield f"api.listen[{n}]: {each!r}: the endpoint is listed twice. Remove one of them."


def _same(path: Path) -> str:
    """Return the path without links and dots, so that equal folders have equal names.

    If a disk hangs, links stay unresolved.
    """
    try:
        return within(_PATIENCE, lambda: os.path.realpath(path))
    except StillRunning:
        return os.path.abspath(path)
