"""The config drive of a server: a CD-ROM in the server's folder, deleted with the folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from pycdlib import PyCdlib

_FILE: Final = "config.iso"
_NODE: Final = "config-drive"

#: Arguments of ``device_add``.  Every guest of a PC knows IDE's CD-ROMs, and the names of the
#: guest's disks (vda, vdb) stay as they are.
DEVICE: Final[Mapping[str, object]] = {"driver": "ide-cd", "id": _NODE, "drive": _NODE}


def block(fdset: int) -> dict[str, object]:
    """Return the arguments of ``blockdev-add`` for the drive.

    :param fdset: number of the fdset with the drive's descriptor.
    """
    return {
        "driver": "raw",
        "node-name": _NODE,
        "read-only": True,
        "file": {"driver": "file", "filename": f"/dev/fdset/{fdset}", "read-only": True},
    }


def opened(folder: Path) -> int:
    """Open the drive in a server's folder.  Return the descriptor.  Blocks."""
    return os.open(folder / _FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the drive in a server's folder, in place of a former drive.  Blocks.

    Without files, make no drive.

    :param files: contents by path.
    """
    path = folder / _FILE
    path.unlink(missing_ok=True)
    if files:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(image(files))


def image(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO 9660 file system with Rock Ridge and Joliet names, labelled ``config-2``."""
    disc = PyCdlib()
    disc.new(interchange_level=3, vol_ident="config-2", rock_ridge="1.09", joliet=3)
    #: ISO 9660's own names of the folders, by path.  No guest looks at these names.
    folders: dict[str, str] = {"": ""}
    for number, path in enumerate(sorted(files)):
        above = ""
        *parts, name = path.split("/")
        for part in parts:
            below = f"{above}/{part}"
            if below not in folders:
                folders[below] = f"{folders[above]}/D{len(folders)}"
                disc.add_directory(folders[below], rr_name=part, joliet_path=below)
            above = below
        content = files[path]
        plain = f"{folders[above]}/F{number}.;1"
        joliet = f"{above}/{name}"
        disc.add_fp(BytesIO(content), len(content), plain, rr_name=name, joliet_path=joliet)
    written = BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue()
