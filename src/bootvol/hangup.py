"""SIGHUP: the daemon opens its log file again, then applies changed settings."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable, Mapping
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import threadable
from twisted.python.logfile import LogFile

from bootvol.reactors import IReactor, installed

#: Size in bytes at which a log file is rotated: ``twistd``'s own default.
LARGEST: Final = 1_000_000
#: Number of rotated log files to keep.
KEPT: Final = 100
_NUMBER: Final = re.compile("[1-9][0-9]{0,8}")


class Hangup(Service):
    """The service that answers SIGHUP while the daemon runs.

    The constructor installs the signal handler.  Without a handler, SIGHUP would end the process
    while the process starts or ends.  A signal during the start is answered as soon as the daemon
    runs, because the daemon may have read the configuration before the change.

    :param reactor: brings the signal to the reactor thread.
    :param log: the log of the daemon.
    :ivar reload: applies the current content of the configuration file.
    """

    def __init__(self, reactor: IReactor, log: TwistdLog) -> None:
        self.reload: Callable[[], Deferred[None]] = lambda: succeed(None)
        self._reactor = reactor
        self._log = log
        self._waits = False
        signal.signal(signal.SIGHUP, self._received)

    def startService(self) -> None:
        """Answer SIGHUP from now on, and answer a signal that arrived during the start."""
        super().startService()
        if self._waits:
            self._reactor.callWhenRunning(self._answer)

    def _received(self, _number: int, _frame: object) -> None:
        self._waits = True
        if self.running:
            # A signal handler may interrupt any code, so let the reactor answer later.
            self._reactor.callFromThread(self._answer)

    def _answer(self) -> None:
        self._waits = False
        self._log.reopen()
        self.reload()


class TwistdLog:
    """The log file of ``twistd``, which can be opened again after another program moved the file.

    The options of ``twistd`` still choose where to log:

    - to a file, by default.  The file is rotated at :data:`LARGEST` bytes and on SIGUSR1, and
      :data:`KEPT` old files are kept;
    - to standard output, with ``--nodaemon``;
    - elsewhere, with ``--syslog`` or ``--logger``.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._file: _File | None = None

    def observer(self, options: Mapping[str, object]) -> ILogObserver | None:
        """Open the log file.  Blocks.

        :param options: options of ``twistd``.
        :returns: the observer of the log file; None if ``twistd`` logs to no file.
        """
        name = str(options.get("logfile") or ("-" if options.get("nodaemon") else "twistd.log"))
        if name == "-" or options.get("syslog") or options.get("logger"):
            return None
        file = self._file = _File.fromFullPath(
            os.path.abspath(name), rotateLength=LARGEST, maxRotatedFiles=KEPT
        )

        def rotate(_number: int, _frame: object) -> None:
            installed().callFromThread(file.rotate)

        signal.signal(signal.SIGUSR1, rotate)
        observer: ILogObserver = textFileLogObserver(file)
        return observer

    def reopen(self) -> None:
        """Open the file again under its name: another program may have moved the old file.

        If the file cannot be opened, for example in a deleted folder, the daemon keeps the old one.
        """
        if self._file is None:
            return
        try:
            self._file.reopen()
        except OSError as error:
            self._log.error(
                "{path} cannot be opened, so the log continues in the former file: {why}",
                path=self._file.path,
                why=error.strerror,
            )


class _File(LogFile):
    """A log file that is closed only after the next file is open.

    ``LogFile`` closes the old file first.  If the next file then cannot be opened (the disk is
    full, or too many files are open), the log has ended for good.
    """

    synchronized: list[str] = ["rotate", "reopen"]  # noqa: RUF012 - as in the base class

    def rotate(self) -> None:
        """Continue in a new file, or in the old file if no new file can be made."""
        if not (os.access(self.directory, os.W_OK) and os.access(self.path, os.W_OK)):
            return
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            # Of all programs' /dev/null only the name would be left.
            return
        fresh = f"{self.path}.new"
        try:
            # List first: the new file may take the last descriptor.  Without the list, a rename
            # could overwrite an old file.
            old = self._numbers()
            new = open(fresh, "wb+", 0)  # noqa: SIM115 - stays open
        except OSError:
            return
        try:
            os.chmod(fresh, stat.S_IMODE(os.fstat(self._file.fileno()).st_mode))
            for number in old:
                if number >= self.maxRotatedFiles:
                    os.remove(f"{self.path}.{number}")
                else:
                    os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            os.rename(self.path, f"{self.path}.1")
            os.rename(fresh, self.path)
        except OSError:
            new.close()
            return
        self._file.close()
        self._file, self.size = new, 0

    def _numbers(self) -> list[int]:
        """Return the numbers of the old files, the highest first.

        If the folder cannot be listed, ``listLogs`` returns no files; this method raises instead.

        :raises OSError: if the folder cannot be listed.
        """
        begin = f"{self.name}."
        names = [each for each in os.listdir(self.directory) if each.startswith(begin)]
        ends = [each.removeprefix(begin) for each in names]
        return sorted((int(end) for end in ends if _NUMBER.fullmatch(end)), reverse=True)

    def reopen(self) -> None:
        """Open the file again, under its name.

        :raises OSError: if the file cannot be opened.  The old one stays open.
        """
        old = self._file
        self._openFile()
        old.close()


threadable.synchronize(_File)
