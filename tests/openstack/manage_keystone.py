"""Runs in the environment of OpenStack: several calls of ``keystone-manage`` in one start.

Each argument is a JSON list with the arguments of one call. Importing Keystone takes most of the
time, and each process can set up Keystone only once.
"""

import json
import os
import sys

from keystone.cmd import cli


def main() -> None:
    """Run each call in a process of its own, one after the other; stop after a failure."""
    for argument in sys.argv[1:]:
        child = os.fork()
        if not child:
            cli.main(argv=["keystone-manage", *json.loads(argument)])
            sys.exit()
        if os.waitpid(child, 0)[1]:
            sys.exit(f"keystone-manage failed: {argument}")


main()
