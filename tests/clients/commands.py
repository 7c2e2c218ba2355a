"""Run commands of a client, one after the other, in one process.

Arguments: the client's program, and "terminal" if the commands shall have a terminal as their
standard input.

Standard input has one command in each line, as a JSON list of arguments.  For each command,
standard output gets one line: a JSON list of the exit code, the output and the errors.  The process
imports the client once.  Each command logs in anew, as in a process of its own.
"""

import io
import json
import logging
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import entry_points

(program,) = entry_points(group="console_scripts", name=sys.argv[1])
main = program.load()
answers = sys.stdout
# A command with another standard input than a terminal may read it.
commands = os.fdopen(os.dup(0))
os.dup2(os.openpty()[1] if "terminal" in sys.argv[2:] else os.open(os.devnull, os.O_RDONLY), 0)
# openstack keeps its clients in a class, for all commands of the process.
kept = []
if program.name == "openstack":
    from osc_lib.clientmanager import ClientManager

    kept = [each for each in vars(ClientManager).values() if hasattr(each, "_handle")]
for line in commands:
    for each in kept:
        each._handle = None
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    arguments = json.loads(line)
    sys.argv = [program.name, *arguments]
    # A client adds a handler for each command.
    logging.getLogger().handlers.clear()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            code = main(arguments) if program.name == "openstack" else main()
        except SystemExit as error:
            code = error.code
    output.flush()
    told = output.buffer.getvalue().decode()
    print(json.dumps([code or 0, told, errors.getvalue()]), file=answers, flush=True)
