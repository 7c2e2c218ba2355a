"""The command ``bootvol``: the operator's commands, and a client of the HTTP API.

Exit codes: 0: success; 1: failure; 2: wrong command line; 3: the token is missing, invalid or lacks
rights; 4: the object does not exist; 5: the service cannot be reached.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line. An error goes to standard error in one line."""
    from bootvol.cli.commands import bootvol
    from bootvol.cli.failures import FAILED, CommandFailed
    from bootvol.cli.text import lines

    for name in ("stdout", "stderr"):
        # Python sets a stream to None if the shell has closed the descriptor.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole run
    for stream in (sys.stdout, sys.stderr):
        # The terminal's encoding may lack letters of the names.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    try:
        bootvol(prog_name="bootvol")
    except CommandFailed as failure:
        sys.stderr.write(f"bootvol: {lines(str(failure))}\n")
        sys.exit(failure.exit_code)
    except OSError as error:
        # For example, the disk is full. Discard the rest of the buffer at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = error.filename or "standard output"
        sys.stderr.write(f"bootvol: {lines(str(where))}: {error.strerror}\n")
        sys.exit(FAILED)
