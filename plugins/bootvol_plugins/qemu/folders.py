"""The folder of a server, by which its process is known to every daemon to come.

The folder is locked (flock(2)) as long as anything of the server lives: its processes inherit the
lock, so the system lets go of it however they end, and whatever becomes of the daemon.  QEMU's
process holds a lock (fcntl(2)) of its own on a file, and the system tells who that is: a number
that somebody else has by now is never taken for the server's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket as sockets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The file that QEMU's process locks, and where it listens for commands.
PID: Final = "pid"
SOCKET: Final = "qmp"

#: struct flock: kind, from where, offset, length, process id.
_FLOCK: Final = "hhqqi4x"


class Folder:
    """A server's folder, held open.  All methods block on the disk, if shortly.

    :ivar descriptor: of the folder.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder.

        :raises FileNotFoundError: there is none.
        """
        self.path = path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(path, flags)

    @classmethod
    def make(cls, path: Path) -> Folder:
        """Open a server's folder, and make it if there is none."""
        path.mkdir(mode=0o700, exist_ok=True)
        return cls(path)

    @property
    def socket(self) -> str:
        """The path of the socket that QEMU listens on; short, as those of sockets must be."""
        return f"/proc/self/fd/{self.descriptor}/{SOCKET}"

    def listen(self) -> sockets.socket:
        """Make that socket, in place of one of before."""
        listener = sockets.socket(sockets.AF_UNIX)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET, dir_fd=self.descriptor)
            listener.bind(self.socket)
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        return listener

    def open_pid(self) -> int:
        """Open the file that the server's process locks; returns the descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(PID, flags, 0o600, dir_fd=self.descriptor)

    def close(self) -> None:
        """Close the folder, and let go of the lock unless a process has inherited it."""
        os.close(self.descriptor)

    def take(self) -> bool:
        """Lock the folder; return False if something of the server lives."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def process(self) -> int | None:
        """Return the process id of the server's QEMU, None if it does not run."""
        try:
            descriptor = os.open(PID, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(
                _FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
            )
        finally:
            os.close(descriptor)
        return None if kind == fcntl.F_UNLCK else pid

    def lend(self, socket: Path) -> None:
        """Let a socket belong to the user of the server's QEMU, if that runs."""
        process = self.process()
        if process is not None:
            user = os.stat(f"/proc/{process}").st_uid
            if user != os.geteuid():
                os.chown(socket, user, -1)

    def remove(self) -> None:
        """Delete the folder and what is in it."""
        for name in os.listdir(self.descriptor):
            os.unlink(name, dir_fd=self.descriptor)
        self.path.rmdir()


def servers(directory: Path) -> Iterator[str]:
    """Return the names of the servers that run.  Blocks."""
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = Folder(path)
            try:
                if folder.process() is not None:
                    yield path.name
            finally:
                folder.close()
