"""The daemon under ``twistd``: its options, its log, and the answer to SIGHUP.

``twistd bootvol --config FILE`` finds :class:`Options` and :func:`makeService` here, by way of
``twisted/plugins/bootvol_service.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python import usage

from bootvol.hangup import Hangup, TwistdLog


class Options(usage.Options):
    """What ``twistd bootvol`` takes."""

    optParameters: Final = [["config", "c", "twistd.conf", "the configuration file"]]

    def postOptions(self) -> None:
        """Put the daemon together, so that what is wrong is said before anything is started.

        :raises usage.UsageError: a mistake; twistd shows it and exits non-zero.
        """
        from twisted.internet import reactor

        self.log = TwistdLog()
        self.hangup = Hangup(reactor, self.log)
        # Late: this takes a second or more, in which SIGHUP would end the process.
        from bootvol import machine, settings
        from bootvol.clocks import use_steady_clock
        from bootvol.daemon import Daemon
        from bootvol.errors import ConfigurationError

        use_steady_clock(reactor)
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
    """Return the daemon, not yet started."""
    from twisted.internet import reactor

    from bootvol.names import Resolver

    loop: Any = reactor
    loop.installNameResolver(Resolver(loop))
    loop.addSystemEventTrigger("before", "shutdown", options.daemon.end_in_any_case)
    return _Root(options)


class _Root(MultiService):
    """What ``twistd`` runs: the daemon, its log, and the answer to SIGHUP."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        options.daemon.setServiceParent(self)
        options.hangup.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and give it the daemon's log before ``twistd`` opens its own."""
        super().setServiceParent(parent)
        observer = self._options.log.observer(self._options.parent or {})
        if observer is not None:
            parent.setComponent(ILogObserver, observer)
