"""Daemons in processes of their own, as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.daemons import EMBEDDED, STATIC, TENANT, configuration, volumes_in
from tests.servers import free_port
from tests.waiting import LIMIT, LONG_LIMIT, block_until

BIN = Path(sys.executable).parent
#: The daemon in the foreground; its options follow.
TWISTD = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "bootvol"]

#: Seconds that a process may take to end after its port has closed.
_DYING = 10
#: The most characters of a log in a failure.
_TAIL = 20_000
#: The statuses of work in progress.
_UNSETTLED = {
    *("creating", "downloading", "deleting", "attaching", "detaching", "extending"),
    *("uploading", "reverting", "restoring", "retyping", "maintenance", "unmanaging"),
}


class Process:
    """A daemon that twistd runs in the foreground.

    :param folder: the folder of its state, volumes and images.
    :param more: TOML after the basic configuration.
    :param env: additional environment variables.
    :param backend: TOML to add to the table of the daemon's backend.
    :param first: TOML of another backend, which becomes the default for new volumes.
    :param identity: TOML of the table ``[identity]``.
    :param state: TOML of the table ``[state]``.
    :param name: distinguishes the daemon from others in the same folder.
    :param top: TOML before all tables.
    """

    def __init__(
        self,
        folder: Path,
        more: str = "",
        env: dict[str, str] | None = None,
        backend: str = "",
        first: str = "",
        identity: str = STATIC,
        state: str = EMBEDDED,
        name: str = "",
        top: str = "",
    ) -> None:
        self.env = {**os.environ, **(env or {})}
        self.folder = folder
        self.images = folder / "images"
        self.volumes = folder / "volumes"
        self.images.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.base = f"{self.url}/v1.1/{TENANT}"
        self.config = folder / f"twistd{name}.conf"
        self.config.touch(mode=0o600)
        self.config.write_text(configuration(self.port, more, state, backend, first, identity, top))
        self.log = folder / f"log{name}"
        self.start()

    def start(self) -> None:
        """Start the daemon, also after a stop."""
        command = [*TWISTD, "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=log, stderr=log
            )
        block_until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            urllib.request.urlopen(self.url, timeout=LIMIT).close()
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process with a signal; return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(LIMIT)

    def get(self, path: str) -> Any:
        """Return the JSON at a path relative to the tenant's base URI."""
        return self.call("GET", path)

    def create(self, image: str, size: int = 1, token: str = "root") -> int:
        """Create a bootable volume; return its id."""
        wanted = {"volume": {"size": size, "imageRef": image}}
        number: int = self.call("POST", "os-volumes", wanted, token)["volume"]["id"]
        return number

    def delete(self, volume: int) -> None:
        """Delete a volume."""
        self.call("DELETE", f"os-volumes/{volume}")

    def files(self) -> list[Path]:
        """Return the files of all volumes."""
        return volumes_in(self.volumes)

    def statuses(self) -> list[str]:
        """Return the status of every volume, then that of every snapshot."""
        volumes = self.get("os-volumes")["volumes"]
        return [each["status"] for each in volumes + self.get("os-snapshots")["snapshots"]]

    def until_settled(self, seconds: float = LONG_LIMIT) -> list[str]:
        """Wait until no work is in progress; return all statuses."""
        return block_until(self.statuses, lambda found: not _UNSETTLED & set(found), seconds)

    def cli(self, *arguments: str, token: str = "root") -> subprocess.CompletedProcess[str]:
        """Run the command line against the daemon."""
        return cli(*arguments, env={"BOOTVOL_ENDPOINT": self.base, "BOOTVOL_TOKEN": token})

    def begin(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the command line against the daemon, without waiting for its end.

        :param env: additional environment variables; None adds the endpoint and an admin's token.
        """
        added = env or {"BOOTVOL_ENDPOINT": self.base, "BOOTVOL_TOKEN": "root"}
        return subprocess.Popen(
            [BIN / "bootvol", *arguments],
            env={**os.environ, **added},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def peak_memory(self) -> int:
        """Return the peak resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def reactor_time(self) -> float:
        """Return the CPU time of the reactor's thread so far, in seconds."""
        pid = self.process.pid
        running = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]
        return int(running) / 1e9

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "root",
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send a request; return the JSON of its answer, or None.

        :param path: relative to the tenant's base URI, unless it begins with a slash.
        """
        request = urllib.request.Request(
            f"{self.url}{path}" if path.startswith("/") else f"{self.base}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"X-Auth-Token": token, "Content-Type": "application/json", **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as response:
                content = response.read()
        except urllib.error.HTTPError:
            raise
        except OSError:
            self._check_alive()
            raise
        return json.loads(content) if content else None

    def _check_alive(self) -> None:
        """Fail with the log if the process has ended, or ends within a moment."""
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(_DYING)
            raise AssertionError(f"the daemon ended with {code}:\n{self.log.read_text()[-_TAIL:]}")


def cli(
    *arguments: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    seconds: float = LONG_LIMIT,
) -> subprocess.CompletedProcess[str]:
    """Run ``bootvol`` with arguments."""
    return run([BIN / "bootvol", *arguments], env, cwd, stdin, seconds)


def run(
    command: Sequence[str | Path],
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    seconds: float = LONG_LIMIT,
    files: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with a time limit, and capture its output.

    :param files: descriptors for the command to inherit.
    """
    return subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        pass_fds=files,
    )


@contextmanager
def process(
    folder: Path,
    more: str = "",
    env: dict[str, str] | None = None,
    backend: str = "",
    first: str = "",
    identity: str = STATIC,
) -> Iterator[Process]:
    """Run a daemon until the end of the block. See :class:`Process` for the parameters."""
    daemon = Process(folder, more, env, backend, first, identity)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
