"""SIGHUP: the daemon opens its log file again, then applies changed settings."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import threadable
from twisted.python.logfile import LogFile

#: The size in bytes at which a log file is rotated: ``twistd``'s own default.
LARGEST: Final = 1_000_000
#: How many rotated log files are kept.
KEPT: Final = 100
_NUMBER: Final = re.compile("[1-9][0-9]{0,8}")


class Hangup(Service):
    """Answers SIGHUP while the daemon runs.

    The signal belongs to this object from its making on, or it would end a process that starts or
    ends.  What comes during the start is answered when the daemon runs: the configuration may have
    been read before it changed.

    :param reactor: brings the signal to its own thread.
    :param log: what the daemon logs to.
    :ivar reload: applies the configuration that the file has now.
    """

    def __init__(self, reactor: Any, log: TwistdLog) -> None:
        self.reload: Callable[[], Deferred[None]] = lambda: succeed(None)
        self._reactor = reactor
        self._log = log
        self._waits = False
        signal.signal(signal.SIGHUP, self._received)

    def startService(self) -> None:
        """Answer from now on."""
        super().startService()
        if self._waits:
            self._reactor.callWhenRunning(self._answer)

    def _received(self, _number: int, _frame: object) -> None:
        self._waits = True
        if self.running:
            # A signal handler runs between any two instructions: the reactor calls later.
            self._reactor.callFromThread(self._answer)

    def _answer(self) -> None:
        self._waits = False
        self._log.reopen()
        self.reload()


class TwistdLog:
    """The log file of ``twistd``, which can be opened again after another program moved the file.

    Where ``twistd`` logs to stays as its options say: to a file, which is rotated at
    :data:`LARGEST` bytes and on SIGUSR1, and of which :data:`KEPT` old ones are kept; to standard
    output with ``--nodaemon``; or as ``--syslog`` or ``--logger`` say.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._file: _File | None = None

    def observer(self, options: Mapping[str, Any]) -> ILogObserver | None:
        """Open the log file.  Blocks.

        :param options: of ``twistd``.
        :returns: None where ``twistd`` logs to no file.
        """
        name = options.get("logfile") or ("-" if options.get("nodaemon") else "twistd.log")
        if name == "-" or options.get("syslog") or options.get("logger"):
            return None
        file = self._file = _File.fromFullPath(
            os.path.abspath(name), rotateLength=LARGEST, maxRotatedFiles=KEPT
        )

        def rotate(_number: int, _frame: object) -> None:
            from twisted.internet import reactor

            reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

        signal.signal(signal.SIGUSR1, rotate)
        observer: ILogObserver = textFileLogObserver(file)
        return observer

    def reopen(self) -> None:
        """Open the file again, under its name: another program may have moved the old one.

        Where that cannot be, as when the folder has gone, the daemon goes on with the old file.
        """
        if self._file is None:
            return
        try:
            self._file.reopen()
        except OSError as error:
            self._log.error(
                "{path} cannot be opened, so the log stays where it was: {why}",
                path=self._file.path,
                why=error.strerror,
            )


class _File(LogFile):
    """A log file that is closed when the next one is open, and not before.

    ``LogFile`` closes it first.  Where the next one cannot be opened (the disk is full, or too many
    files are open), that log would have ended for good.
    """

    synchronized: list[str] = ["rotate", "reopen"]  # noqa: RUF012 - as in the base class

    def rotate(self) -> None:
        """Go on in a new file; in the old one where no new file can be made."""
        if not (os.access(self.directory, os.W_OK) and os.access(self.path, os.W_OK)):
            return
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            # Of all programs' /dev/null only the name would be left.
            return
        fresh = f"{self.path}.new"
        try:
            # Before the last descriptor is taken: nothing may be written over.
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

        Unlike ``listLogs``, this does not say that there are none where they cannot be listed.

        :raises OSError: they cannot be listed.
        """
        begin = f"{self.name}."
        names = [each for each in os.listdir(self.directory) if each.startswith(begin)]
        ends = [each.removeprefix(begin) for each in names]
        return sorted((int(end) for end in ends if _NUMBER.fullmatch(end)), reverse=True)

    def reopen(self) -> None:
        """Open the file again, under its name.

        :raises OSError: it cannot be opened; the old one stays open.
        """
        old = self._file
        self._openFile()
        old.close()


threadable.synchronize(_File)
