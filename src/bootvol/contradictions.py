"""Mistakes of the configuration that no single key shows: two keys that must not agree.

The machine plays no part here: see :mod:`bootvol.machine` for that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bootvol.threads import StillRunning, within

#: Seconds to wait for a disk that is asked for links.
_PATIENCE: Final = 2.0


def of_folders(
    stores: Mapping[str, Path], others: Mapping[str, Path], sources: Mapping[str, Path]
) -> Iterator[str]:
    """Find folders that two purposes would share.

    A tenant reads the files of an image source, so another folder's secrets or another tenant's
    volume would be an image.  Two backends in one folder would take each other's volumes for
    strays.

    :param stores: folders that each need to be alone, by key; absolute.
    :param others: folders that bootvol writes to, and that may be one folder.
    :param sources: folders that sources read images from.
    :returns: each mistake as one line, without the file's name.
    """
    taken: dict[str, str] = {}
    for key, path in stores.items():
        first = taken.setdefault(_same(path), key)
        if first != key:
            yield f"{key}: '{path}': {first} is the same folder. Give each a folder of its own."
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

    :param files: the files, each by a name for the operator; absolute.
    :param sources: folders that sources read images from, by key.
    :returns: each mistake as one line, without the file's name.
    """
    for key, path in sources.items():
        for name, file in files.items():
            if _same(file.parent) == _same(path):
                yield (
                    f"{key}: '{path}': {name} lies in this folder, so tenants could use that file"
                    " as an image. Give the images a folder of their own."
                )


def of_endpoints(endpoints: list[str]) -> Iterator[str]:
    """Find endpoint descriptions that stand in the list twice.

    :returns: each mistake as one line, without the file's name.
    """
    for n, each in enumerate(endpoints):
        if each in endpoints[:n]:
            yield f"api.listen[{n}]: {each!r}: the endpoint is listed twice. Remove one of them."


def _same(path: Path) -> str:
    """Return the path without links and dots, so that equal folders have equal names.

    Where a disk hangs, what is a link there is not known, and the path is taken as it is.
    """
    try:
        return within(_PATIENCE, lambda: os.path.realpath(path))
    except StillRunning:
        return os.path.abspath(path)
