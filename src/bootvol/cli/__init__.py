"""The command ``bootvol``: the operator's commands, and a client of the HTTP API.

Exit codes: 0: success; 1: failure; 2: wrong command line; 3: the token is missing, invalid or lacks
rights; 4: the object does not exist; 5: the service cannot be reached; 130: Ctrl-C.
"""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> None:
    """Run the command line. An error goes to standard error in one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # During imports, an exception would end in a traceback, or get lost.
        signal.signal(signal.SIGINT, _end)
    if sys.argv[1:2] == ["serve"]:
        # The daemon answers SIGHUP.  Until the daemon can do so, the signal must not end it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _run()
    except KeyboardInterrupt:
        # Ctrl-C came before the command began.
        sys.exit(128 + signal.SIGINT)


def _end(number: int, _frame: object) -> None:
    """Answer a signal that comes before the command begins: end the process."""
    os._exit(128 + number)


def _run() -> None:
    import click

    from bootvol.cli.commands import bootvol
    from bootvol.cli.failures import FAILED, INTERRUPTED, CommandFailed
    from bootvol.cli.text import lines

    for name in ("stdout", "stderr"):
        # Python sets a stream to None if the shell has closed the descriptor.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole run
    for stream in (sys.stdout, sys.stderr):
        # The terminal's encoding may lack letters of the names.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(bootvol(prog_name="bootvol", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:
        # Or the input of a prompt has ended.
        interrupted = isinstance(error.__context__, KeyboardInterrupt)
        sys.stderr.write("\n" if interrupted else "bootvol: there is no input\n")
        sys.exit(INTERRUPTED if interrupted else FAILED)
    except CommandFailed as failure:
        sys.stderr.write(f"bootvol: {lines(str(failure))}\n")
        sys.exit(failure.exit_code)
    except OSError as error:
        # For example, the disk is full. Discard the rest of the buffer at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = error.filename or "standard output"
        sys.stderr.write(f"bootvol: {lines(str(where))}: {error.strerror}\n")
        sys.exit(FAILED)
