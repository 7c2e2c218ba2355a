"""The numbers of files and connections that the daemon may open, and that the daemon needs."""

from __future__ import annotations

import resource
from typing import Final

from bootvol.errors import ConfigurationError
from bootvol.settings import Settings

#: Connections beyond the configured number.  Their clients learn that all connections are in use.
SPARE: Final = 16
#: Descriptors that the daemon needs in any case.
_ANYWAY: Final = 80
#: Descriptors for each running import, copy or removal.
_OF_A_JOB: Final = 16
#: Copies and removals that run at once on one backend.
_JOBS_OF_A_BACKEND: Final = 4
#: The smallest useful number of connections.
_FEWEST: Final = 16


def connections(config: Settings) -> tuple[int, str | None]:
    """Return the number of connections that the descriptors allow, beside all other uses.

    The function raises the soft limit of the process to the hard limit.

    :returns: the number, and a warning if the number is lower than configured.
    :raises ConfigurationError: if too few descriptors are left for any connection.
    """
    at_once = config.imports.concurrent + _JOBS_OF_A_BACKEND * len(config.backends)
    others = _ANYWAY + _OF_A_JOB * at_once
    limit = _raised()
    left, wanted = limit - others, config.api.connections
    remedy = "Raise the limit (LimitNOFILE of systemd, ulimit -n), or lower"
    if left < min(wanted, _FEWEST):
        raise ConfigurationError(
            f"imports.concurrent: {config.imports.concurrent}: the daemon may have {limit} files"
            f" open, and needs {others + min(wanted, _FEWEST)}. {remedy} the value."
        )
    if left >= wanted:
        return wanted, None
    return left, (
        f"api.connections: {wanted}: the daemon may have {limit} open files, needs"
        f" {others} for other things, so it takes {left} connections. {remedy} the value."
    )


def _raised() -> int:
    """Raise the limit of descriptors as far as allowed.  Return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # The system may now allow less than the hard limit.
        return soft
    return hard
