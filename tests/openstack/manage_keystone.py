"""Runs in the environment of OpenStack: ``keystone-manage``, several times for one start.

The arguments are JSON lists, each the arguments of one call.  Importing Keystone is what takes
time, and it can be set up but once in a process.
"""

import json
import os
import sys

from keystone.cmd import cli


def main() -> None:
    """Run each call in a process of its own, one after the other; stop at one that fails."""
    for argument in sys.argv[1:]:
        child = os.fork()
        if not child:
            cli.main(argv=["keystone-manage", *json.loads(argument)])
            sys.exit()
        if os.waitpid(child, 0)[1]:
            sys.exit(f"keystone-manage failed: {argument}")


main()
