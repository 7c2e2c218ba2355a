"""The folder of a server, by which its process is known to every daemon to come.

The folder is locked (flock(2)) as long as anything of the server lives: its processes inherit the
lock, so the system lets go of it however they end, and whatever becomes of the daemon.  QEMU's
process holds a lock (fcntl(2)) of its own on a file, and the system tells who that is: a number
that somebody else has by now is never taken for the server's.

A guest that has broken into QEMU can let go of both locks, and live on.  So the daemon also notes
the process, as soon as there is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import socket as sockets
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from bootvol.jail import may_limit, room
from bootvol.processes import Process

#: The file that QEMU's process locks, where it listens for commands, and where the daemon notes the
#: process.
PID: Final = "pid"
SOCKET: Final = "qmp"
NOTE: Final = "process"

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

    def note(self, pid: int | None) -> None:
        """Note the process of the server's QEMU, unless one that runs is noted.

        :param pid: its number; None if it has ended already.
        """
        process = None if pid is None else Process.of(pid)
        if process is not None and self._noted() is None:
            new = f"{NOTE}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600, dir_fd=self.descriptor), "w") as file:
                json.dump(attrs.asdict(process), file)
            os.rename(new, NOTE, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def _noted(self) -> Process | None:
        """Return the process that is noted, if it runs."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(NOTE, flags, dir_fd=self.descriptor)) as file:
                process = Process(**json.load(file))
        except (FileNotFoundError, ValueError, TypeError):
            # A note that the disk lost is none.
            return None
        return process if process.runs() else None

    def process(self) -> int | None:
        """Return the process id of the server's QEMU, None if it does not run."""
        noted = self._noted()
        return self._locker() if noted is None else noted.pid

    def _locker(self) -> int | None:
        """Return the id of the process that holds the lock of QEMU."""
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
        # Another kind of lock has no process, and is none of QEMU's before a guest broke in.
        return None if kind == fcntl.F_UNLCK or pid <= 0 else pid

    def lend(self, socket: Path) -> None:
        """Let a socket belong to the user of the server's QEMU, if that runs."""
        process = self.process()
        if process is not None:
            user = os.stat(f"/proc/{process}").st_uid
            if user != os.geteuid():
                os.chown(socket, user, -1)

    def make_room(self, disk: int) -> None:
        """Let the server's QEMU write to the whole of a disk, if that is a file and QEMU runs.

        :param disk: its descriptor.
        """
        process, found = self.process(), os.fstat(disk)
        if process is not None and stat.S_ISREG(found.st_mode) and may_limit():
            now, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
            wanted = room(found.st_size)
            if now != resource.RLIM_INFINITY and now < wanted:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (wanted, most))

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
