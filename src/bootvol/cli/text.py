"""Text of others, as a terminal may have it.

Volumes, snapshots, types and images are named by other members of a tenant, or by sources.  Sent to
a terminal as they are, such names could move its cursor, set its title, or hide what follows.
"""

from __future__ import annotations

import json
import sys


def shown(text: str) -> str:
    r"""Return a text in one line, without any character that a terminal acts upon.

    Escapes of Python's (``\x1b``, ``\u202e``) stand for control characters (C0, C1, DEL), for those
    that turn the direction of writing, for surrogates and separators of lines, and for all others
    that Python does not call printable.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def lines(text: str) -> str:
    """Return a text of several lines, each as :func:`shown` has it."""
    return "\n".join(map(shown, text.split("\n")))


def as_json(value: object) -> str:
    """Return JSON for people and scripts: what :func:`shown` escapes, as JSON does (RFC 8259)."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not unicode)
    # Outside its strings all is printable but the ends of lines.
    return "\n".join("".join(map(_in_json, line)) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _in_json(character: str) -> str:
    if character.isprintable():
        return character
    # The standard leaves DEL as it is.
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
