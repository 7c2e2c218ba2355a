"""Command line clients of OpenStack, whose commands share a process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.people import PASSWORD
from tests.waiting import LIMIT

ROOT: Final = Path(__file__).parents[1]
CLIENTS: Final = ROOT / ".venv-clients" / "bin"
_RUNNER: Final = ROOT / "tests" / "clients" / "commands.py"


def environment(url: str, folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of Ann's clients.

    :param url: the URL of a daemon.
    :param folder: a folder of the clients.
    :param settings: more variables, also instead of the usual ones.
    """
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "OS_USERNAME": "ann",
        "OS_PASSWORD": PASSWORD,
        "OS_AUTH_URL": f"{url}/identity/v3",
        "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3",
        **settings,
    }


class Client:
    """A command line client, whose commands share a process.

    :param program: the client's program.
    :param settings: the environment.
    :param before: arguments before those of each command.
    :param terminal: whether the commands have a terminal as their standard input. Without one,
        some commands read an image from there.
    :param programs: the folder of the client's environment.
    """

    def __init__(
        self,
        program: str,
        settings: Mapping[str, str],
        before: Sequence[str] = (),
        terminal: bool = False,
        programs: Path = CLIENTS,
    ) -> None:
        self._before = before
        self._process = subprocess.Popen(
            [
                *(programs / "python", "-W", "ignore", _RUNNER, program),
                *(["terminal"] if terminal else []),
            ],
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *more: str) -> tuple[int, str, str]:
        """Run a command; return the exit code, the output and the errors.

        :param command: arguments with spaces between.
        :param more: arguments after them.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        arguments = [*self._before, *command.split(), *more]
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        code, output, errors = json.loads(self._process.stdout.readline())
        return code, output, errors

    def __call__(self, command: str, *more: str) -> str:
        """Run a command that succeeds; return the output."""
        code, output, errors = self.run(command, *more)
        assert code == 0, (command, more, output, errors)
        return output

    def json(self, command: str, *more: str) -> Any:
        """Run a command of ``openstack``; return the result."""
        return json.loads(self(command, *more, "-f", "json"))

    def refused(self, command: str, words: str) -> None:
        """Run a command that fails, and check the reason."""
        code, output, errors = self.run(command)
        assert code != 0, (command, output)
        assert words in output + errors, (command, output, errors)

    def end(self) -> None:
        """End the process."""
        self._process.communicate(timeout=LIMIT)


@contextmanager
def client(
    program: str,
    settings: Mapping[str, str],
    before: Sequence[str] = (),
    terminal: bool = False,
    programs: Path = CLIENTS,
) -> Iterator[Client]:
    """Run a client until the end of the block. See :class:`Client` for the parameters."""
    made = Client(program, settings, before, terminal, programs)
    try:
        yield made
    finally:
        made.end()
