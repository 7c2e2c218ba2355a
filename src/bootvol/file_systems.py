"""Tells the file systems of this machine from those of servers (NFS, SMB, FUSE)."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

#: File systems of this machine without a block device of their own (the types of statfs(2)): btrfs,
#: tmpfs, overlayfs, ZFS, bcachefs.
_LOCAL: Final = frozenset({0x9123683E, 0x01021994, 0x794C7630, 0x2FC12FC1, 0xCA451A4E})
#: More bytes than struct statfs has.  The type comes first.
_STATFS: Final = 256
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def is_local(descriptor: int) -> bool:
    """Return whether the kernel of this machine alone knows who uses an open file.  Blocks.

    :returns: False also if the kind of the file system is not known.
    """
    if os.major(os.fstat(descriptor).st_dev):
        # The file system has a block device.
        return True
    found = ctypes.create_string_buffer(_STATFS)
    if _LIBC.fstatfs64(descriptor, found):
        return False
    (kind,) = struct.unpack_from("@l", found)
    return kind & 0xFFFFFFFF in _LOCAL
