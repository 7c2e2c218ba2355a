"""The command ``bootvol``: the operator's commands, and a client of the HTTP API.

Exit codes: 0 it is done; 1 it failed; 2 the command line is wrong; 3 the token is missing, not
valid or not enough; 4 there is no such thing; 5 the service cannot be reached.
"""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line; what is wrong goes to standard error in one line."""
    from bootvol.cli.commands import bootvol
    from bootvol.cli.failures import CommandFailed
    from bootvol.cli.text import lines

    for stream in (sys.stdout, sys.stderr):
        # A terminal may know other letters than names have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    try:
        bootvol(prog_name="bootvol")
    except CommandFailed as failure:
        sys.stderr.write(f"bootvol: {lines(str(failure))}\n")
        sys.exit(failure.exit_code)
