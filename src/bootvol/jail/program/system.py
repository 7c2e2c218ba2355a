"""Shared by all restrictions: the C library, the families of sockets, and the error."""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: The C library of this process.
libc: Final = ctypes.CDLL(None, use_errno=True)
#: Families of sockets, from linux/socket.h.
UNIX, INET, INET6 = 1, 2, 10


class Lacking(Exception):
    """A requirement for running a confined program is missing."""
