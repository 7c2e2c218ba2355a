"""The daemon under ``twistd``: its options, its log, and the answer to SIGHUP.

``twistd bootvol --config FILE`` finds :class:`Options` and :func:`makeService` here, through
``twisted/plugins/bootvol_service.py``.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from twisted.application.service import IService, IServiceCollection, MultiService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from bootvol.hangup import Hangup, TwistdLog
from bootvol.reactors import installed

if TYPE_CHECKING:
    from twisted.internet.base import ReactorBase


#: From glibc's malloc.h: the limit for the number of heaps.  By default each thread has one of its
#: own, up to eight for each processor, and each heap keeps some free memory.
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 2


class Options(usage.Options):
    """The command-line options of ``twistd bootvol``."""

    optParameters: Final = [["config", "c", "twistd.conf", "the configuration file"]]

    def postOptions(self) -> None:
        """Put the daemon together, to report mistakes before any part starts.

        :raises usage.UsageError: if the configuration or the machine has a mistake.  ``twistd``
            shows the mistake and exits non-zero.
        """
        _limit_heaps()
        reactor = installed()
        self.log = TwistdLog()
        self.hangup = Hangup(reactor, self.log)
        # Import late: imports take a second or more, and SIGHUP would end the process meanwhile.
        from bootvol import machine, settings
        from bootvol.clocks import use_steady_clock
        from bootvol.daemon import Daemon
        from bootvol.errors import ConfigurationError

        use_steady_clock(cast("ReactorBase", reactor))
        try:
            config = settings.load(Path(self["config"]).absolute())
            found = machine.examine(config, reactor)
            if fatal := [each.line for each in found if each.fatal]:
                raise ConfigurationError("\n".join(fatal))
            self.daemon = Daemon(config, reactor, [each.line for each in found])
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from error
        self.hangup.reload = self.daemon.reload


def makeService(options: Options) -> IService:
    """Return the daemon as a service that is not started yet."""
    from bootvol.names import Resolver

    reactor = installed()
    reactor.installNameResolver(Resolver(reactor))
    reactor.addSystemEventTrigger("before", "shutdown", options.daemon.end_in_any_case)
    root = _Root(options)
    # A full collection of garbage stops the reactor, and bodies with many lists cause collections.
    # All these objects last as long as the daemon, so no collection has to look at them again.
    gc.collect()
    gc.freeze()
    return root


def _limit_heaps() -> None:
    """Have all threads share a few heaps.  Call this function before any thread starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Other libraries than glibc do not have the function.
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)


class _Root(MultiService):
    """The service that ``twistd`` runs: the daemon, its log, and the answer to SIGHUP."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        options.daemon.setServiceParent(self)
        options.hangup.setServiceParent(self)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join the application, and set the daemon's log before ``twistd`` opens its own log."""
        super().setServiceParent(parent)
        observer = self._options.log.observer(self._options.parent or {})
        if observer is not None:
            cast("Componentized", parent).setComponent(ILogObserver, observer)
