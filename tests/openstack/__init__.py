"""Real services of OpenStack for tests, on loopback, in temporary folders.

Their programs have an environment of their own, ``.venv-openstack``, made by ``make test`` from
``requirements.txt``: their dependencies stay apart from bootvol's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.waiting import LIMIT

_BIN: Final = Path(__file__).parents[2] / ".venv-openstack/bin"


def program(name: str) -> str:
    """Return the path of a program in the environment."""
    path = _BIN / name
    assert path.exists(), "This test needs: make .venv-openstack/.installed"
    return str(path)


def run(*command: str, env: Mapping[str, str] | None = None) -> None:
    """Run a program of the environment to its end. Blocks."""
    name, *arguments = command
    ended = subprocess.run(
        [program(name), *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert not ended.returncode, f"{' '.join(command)}: {ended.stderr}"


class Served:
    """A service behind gunicorn, in a process group of its own. All methods block.

    :param application: the application in gunicorn's form, ``module:name``.
    :param port: the port on loopback.
    :param folder: folder for the service's output.
    :param env: additional environment variables.
    :param threads: number of requests answered at once.
    :param tls: the files of a certificate and its key, for https.
    """

    def __init__(
        self,
        application: str,
        port: int,
        folder: Path,
        env: Mapping[str, str],
        threads: int = 1,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        # The settings are in a file, since Keystone takes the command line for its own.
        settings = {
            "wsgi_app": application,
            "bind": f"127.0.0.1:{port}",
            "worker_class": "gthread",
            "threads": threads,
            "timeout": 300,
            "control_socket_disable": True,
            "accesslog": "access.log",
            "access_log_format": "%(m)s %(U)s %(s)s",
        }
        if tls is not None:
            settings |= {"certfile": str(tls[0]), "keyfile": str(tls[1])}
        self._folder = folder
        self._env = {**os.environ, **env}
        self._name = application
        self._log = folder / "gunicorn.log"
        lines = [f"{name} = {value!r}" for name, value in settings.items()]
        (folder / "gunicorn.conf.py").write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, address: str) -> None:
        """Start the service, and wait until its address answers, with any status."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program("gunicorn")],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + LIMIT
        while not _answers(address):
            running = self._process.poll() is None and time.monotonic() < end
            assert running, f"{self._name} does not start:\n{self._log.read_text()}"
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes: SIGSTOP pauses the service, SIGCONT ends the pause."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def requests(self) -> list[str]:
        """Return the requests so far, each with method, path and status.

        With one thread, a request is listed once the next one has been answered.
        """
        return (self._folder / "access.log").read_text().splitlines()

    def kill(self) -> None:
        """End the service at once, even a stopped one. Idempotent."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=LIMIT).close()
    except urllib.error.HTTPError as error:
        error.close()
    except urllib.error.URLError as error:
        # A client that rejects the certificate has reached the service, too.
        return "CERTIFICATE" in str(error.reason)
    except ConnectionError:
        return False
    return True
