"""The folder of a server.  By the folder, every later daemon finds the server's process.

The folder is locked (flock(2)) while anything of the server lives.  The server's processes inherit
the lock.  So the system releases the lock however they end, and whatever becomes of the daemon.
QEMU's process holds its own lock (fcntl(2)) on a file, and the system tells the id of this process.
So a process id that now belongs to another process is never taken for the server's.

A guest that has broken into QEMU can release both locks, and live on.  So the daemon also notes the
process as soon as the process exists.
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
from pathlib import Path
from typing import Final

import attrs

from bootvol import files
from bootvol.jail import may_limit, room
from bootvol.processes import Process

#: The file that QEMU's process locks; the socket where QEMU listens for commands; and the file of
#: the daemon's note of the process.
PID: Final = "pid"
SOCKET: Final = "qmp"
NOTE: Final = "process"

#: struct flock: type, whence, start, length, process id.
_FLOCK: Final = "hhqqi4x"


class Folder:
    """A server's folder, held open.  All methods block on the disk, but only shortly.

    :ivar descriptor: descriptor of the folder.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder.

        :raises FileNotFoundError: if the folder does not exist.
        """
        self.path = path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(path, flags)

    @classmethod
    def make(cls, path: Path) -> Folder:
        """Open a server's folder.  Make a missing folder first."""
        path.mkdir(mode=0o700, exist_ok=True)
        return cls(path)

    @property
    def socket(self) -> str:
        """The path of the socket where QEMU listens.  The path is short, as sockets demand."""
        return f"/proc/self/fd/{self.descriptor}/{SOCKET}"

    def listen(self) -> sockets.socket:
        """Make the socket where QEMU listens, in place of a former socket."""
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
        """Open the file that the server's process locks, for reading.  Return the descriptor."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(PID, flags, 0o600, dir_fd=self.descriptor)

    def close(self) -> None:
        """Close the folder, and release the lock unless a process has inherited the lock."""
        os.close(self.descriptor)

    def take(self) -> bool:
        """Lock the folder.  Return False if anything of the server lives."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def note(self, pid: int | None) -> None:
        """Note the process of the server's QEMU, unless a running process is noted.

        :param pid: id of the process; None if the process has ended already.
        """
        process = None if pid is None else Process.of(pid)
        if process is not None and self._noted() is None:
            content = json.dumps(attrs.asdict(process)).encode()
            files.replace_in(self.descriptor, NOTE, content, draft=f"{NOTE}.new")

    def _noted(self) -> Process | None:
        """Return the noted process, if the process runs."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(NOTE, flags, dir_fd=self.descriptor)) as file:
                process = Process(**json.load(file))
        except (FileNotFoundError, ValueError, TypeError):
            # A note that the disk lost counts as no note.
            return None
        return process if process.runs() else None

    def process(self) -> int | None:
        """Return the process id of the server's QEMU; None if QEMU does not run."""
        noted = self._noted()
        return self._locker() if noted is None else noted.pid

    def _locker(self) -> int | None:
        """Return the id of the process that holds QEMU's lock, or None."""
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
        # Another kind of lock has no process.  QEMU takes no such lock unless a guest broke in.
        return None if kind == fcntl.F_UNLCK or pid <= 0 else pid

    def lend(self, socket: Path) -> None:
        """Let a socket belong to the user of the server's QEMU, if QEMU runs."""
        process = self.process()
        if process is not None:
            user = os.stat(f"/proc/{process}").st_uid
            if user != os.geteuid():
                os.chown(socket, user, -1)

    def make_room(self, disk: int) -> None:
        """Let the server's QEMU write to the whole disk, if the disk is a file and QEMU runs.

        :param disk: descriptor of the disk.
        """
        found = os.fstat(disk)
        if stat.S_ISREG(found.st_mode):
            self.allow(found.st_size)

    def allow(self, size: int) -> None:
        """Let the server's QEMU write to disks in files of ``size`` bytes, if QEMU runs."""
        process = self.process()
        if process is not None and may_limit():
            now, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
            wanted = room(size)
            if now != resource.RLIM_INFINITY and now < wanted:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (wanted, most))

    def remove(self) -> None:
        """Delete the folder and its files."""
        for name in os.listdir(self.descriptor):
            os.unlink(name, dir_fd=self.descriptor)
        self.path.rmdir()


def running(directory: Path) -> dict[str, int]:
    """Return the process id of each server whose folder knows a process.  Blocks."""
    found: dict[str, int] = {}
    for path in directory.iterdir() if directory.exists() else ():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = Folder(path)
            try:
                process = folder.process()
            finally:
                folder.close()
            if process is not None:
                found[path.name] = process
    return found
