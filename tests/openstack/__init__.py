"""Services of OpenStack for tests: real ones, on loopback, in folders that go with them.

Their programs live in an environment of their own, ``.venv-openstack``, which ``make test`` makes
of ``requirements.txt``: what they need does not mix with what bootvol needs.
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
    """Return the path of a program of that environment."""
    path = _BIN / name
    assert path.exists(), "This test needs: make .venv-openstack/.installed"
    return str(path)


def run(*command: str, env: Mapping[str, str] | None = None) -> None:
    """Run one of those programs to its end.  Blocks."""
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
    """A service behind gunicorn, in a process group of its own.  All methods block.

    :param application: as gunicorn names it, ``module:name``.
    :param port: to listen on, on loopback.
    :param folder: takes what the service writes out.
    :param env: what is added to the environment.
    :param threads: how many requests are answered at once.
    :param tls: the files of a certificate and of its key, for https.
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
        # In a file: what stands in the command line Keystone takes for its own.
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
        """Start it, and wait until it answers at an address of its own, with whatever status."""
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
        """Send a signal to all of it: SIGSTOP and SIGCONT stop it for a while."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def requests(self) -> list[str]:
        """Return what has been asked so far: of each the method, the path and the status.

        With one thread, a request is in it when the next one has been answered.
        """
        return (self._folder / "access.log").read_text().splitlines()

    def kill(self) -> None:
        """End it at once, even where it is stopped.  Idempotent."""
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
        # Whoever does not know the certificate has reached the service all the same.
        return "CERTIFICATE" in str(error.reason)
    except ConnectionError:
        return False
    return True
