"""How many files and connections the daemon may have open, and how many it needs."""

from __future__ import annotations

import resource
from typing import Final

from bootvol.errors import ConfigurationError
from bootvol.settings import Settings

#: Connections beyond the configured number that are told that all others are being answered.
SPARE: Final = 16
#: Descriptors that the daemon needs in any case, and for each import, copy or removal that runs;
#: how many of the last two a backend has at once, and the fewest connections that are of any use.
_ANYWAY: Final = 80
_OF_A_JOB: Final = 16
_JOBS_OF_A_BACKEND: Final = 4
_FEWEST: Final = 16


def connections(config: Settings) -> tuple[int, str | None]:
    """Return how many connections there may be beside all else that needs descriptors.

    The process gets as many descriptors as it may give itself.

    :returns: the number, and a warning if it is less than the configuration says.
    :raises ConfigurationError: there are too few for any.
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
        f"api.connections: {wanted}: the daemon may have {limit} files open, of which it needs"
        f" {others} for other things, so it takes {left} connections. {remedy} the value."
    )


def _raised() -> int:
    """Let this process have as many descriptors as it may give itself; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # The hard limit may be more than the system allows by now.
        return soft
    return hard
