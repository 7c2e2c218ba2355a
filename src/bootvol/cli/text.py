"""Makes foreign text safe for a terminal.

Other members of a tenant, or sources, name volumes, snapshots, types and images.  Sent to a
terminal unchanged, such names could move its cursor, set its title, or hide later text.
"""

from __future__ import annotations

import json
import sys


def shown(text: str) -> str:
    r"""Return a text in one line, without any character that controls a terminal.

    Python's escapes (``\x1b``, ``\u202e``) replace all characters that Python does not call
    printable.  Among these are control characters (C0, C1, DEL), characters that change the
    direction of writing, surrogates and line separators.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def lines(text: str) -> str:
    """Return a text of several lines, with each line as :func:`shown` returns it."""
    return "\n".join(map(shown, text.split("\n")))


def as_json(value: object) -> str:
    """Return JSON, with unprintable characters escaped as JSON does (RFC 8259)."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not unicode)
    # Outside of its strings, JSON has no unprintable characters except line ends.
    return "\n".join("".join(map(_in_json, line)) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _in_json(character: str) -> str:
    if character.isprintable():
        return character
    # The standard library leaves DEL unescaped.
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
