"""What tests of QEMU share."""

from __future__ import annotations

from pathlib import Path

from bootvol.model import Connection
from bootvol_plugins.qemu.options import QemuOptions

MIB = 1024 * 1024


def options(folder: Path, **more: object) -> QemuOptions:
    """Return what the plugin is told, with its directory in a folder."""
    directory = folder / "servers"
    directory.mkdir(exist_ok=True)
    return QemuOptions.model_validate({"directory": directory, **more})


def disk_file(path: Path, first_line: bytes = b"") -> Connection:
    """Make a disk, and return how it is reached."""
    path.write_bytes(first_line.ljust(MIB, b"\0"))
    return Connection("file", str(path))
