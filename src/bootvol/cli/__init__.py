"""The command ``bootvol``: the operator's commands, and a client of the HTTP API.

Exit codes: 0 it is done; 1 it failed; 2 the command line is wrong; 3 the token is missing, not
valid or not enough; 4 there is no such thing; 5 the service cannot be reached.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line; what is wrong goes to standard error in one line."""
    from bootvol.cli.commands import bootvol
    from bootvol.cli.failures import FAILED, CommandFailed
    from bootvol.cli.text import lines

    for name in ("stdout", "stderr"):
        # So Python has it where the shell has closed one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole run
    for stream in (sys.stdout, sys.stderr):
        # A terminal may know other letters than names have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    try:
        bootvol(prog_name="bootvol")
    except CommandFailed as failure:
        sys.stderr.write(f"bootvol: {lines(str(failure))}\n")
        sys.exit(failure.exit_code)
    except OSError as error:
        # A full disk, say. What is left in the buffer must not be written at the very end, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = error.filename or "standard output"
        sys.stderr.write(f"bootvol: {lines(str(where))}: {error.strerror}\n")
        sys.exit(FAILED)
