"""Run commands of a client, one after the other, in one process.  Argument: the client's program.

Standard input has one command in each line, as a JSON list of arguments.  For each command,
standard output gets one line: a JSON list of the exit code, the output and the errors.  The process
imports the client once.  Each command logs in anew, as in a process of its own.
"""

import io
import json
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import entry_points

(program,) = entry_points(group="console_scripts", name=sys.argv[1])
main = program.load()
answers = sys.stdout
for line in sys.stdin:
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
