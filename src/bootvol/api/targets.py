"""The target and the host of a request: forms that are refused unread.

Twisted splits paths and queries at the end of a head, before any limit of bootvol could apply: a
path of 16,000 slashes takes about five milliseconds, and as many empty parameters about ten.
"""

from __future__ import annotations

import re
from typing import Final

from bootvol.errors import BootvolError, MalformedUrl

#: Maximum number of slashes in a path, and maximum number of parameters in a query: more than any
#: call has.
MOST_SEGMENTS: Final = 100
MOST_PARAMETERS: Final = 100
#: A Host: a name or an address, and a port (RFC 3986, section 3.2.2; RFC 9112, section 3.2).
_HOST: Final = re.compile(rb"([0-9A-Za-z._~-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
#: A target with a host.  An empty host is invalid (RFC 9110, section 4.2.1).
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]+)(.*)")


def fault_of(target: bytes) -> BootvolError | None:
    """Return the fault of the target of a request (RFC 9112, section 3.2); None for a good one.

    Only clients know fragments, so a proxy may see another path where the target has a ``#``.
    """
    path, _, query = target.partition(b"?")
    if b"#" in target:
        return MalformedUrl()
    if path.count(b"/") > MOST_SEGMENTS:
        return MalformedUrl("Too many segments in the URL")
    # Twisted splits at both.
    if query.count(b"&") + query.count(b";") >= MOST_PARAMETERS:
        return MalformedUrl("Too many parameters in the URL")
    return None


def split(target: bytes) -> tuple[bytes, bytes | None]:
    """Return the path and the query of a target, and its host; None for a target without a host.

    A client of a proxy sends the host in the target (RFC 9112, section 3.2.2).
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target, None
    host, rest = found.groups()
    return (rest if rest.startswith(b"/") else b"/" + rest), host


def is_host(value: bytes) -> bool:
    """Return whether the value of a Host is valid."""
    return _HOST.fullmatch(value) is not None
