"""A private PostgreSQL server for tests, on a unix socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.waiting import LIMIT, block_until

#: PostgreSQL refuses to run as root. Debian's package makes this user.
_USER = "postgres"


@contextmanager
def server() -> Iterator[str]:
    """Run a server; yield the URL of its databases, which ``format(NAME)`` completes."""
    (binaries,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    root = os.getuid() == 0
    user = _USER if root else None
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        if root:
            os.chown(folder, pwd.getpwnam(_USER).pw_uid, -1)
        made = subprocess.run(
            [
                binaries / "initdb",
                "--auth=trust",
                "--no-sync",
                f"--username={_USER}",
                folder / "data",
            ],
            user=user,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        process = subprocess.Popen(
            [
                binaries / "postgres",
                *("-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-F"),
            ],
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"postgresql://{_USER}@/{{}}?host={folder}"
            _wait(url)
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(LIMIT)


def create_database(url: str, name: str, form: str = "", *settings: str) -> str:
    """Create an empty database on a server; return its URL.

    :param form: the end of the statement, such as an encoding.
    :param settings: settings of all sessions of the database, such as ``DateStyle = 'German'``.
    """
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" {form}'.encode())
        for each in settings:
            connection.execute(f'ALTER DATABASE "{name}" SET {each}'.encode())
    return url.format(name)


@contextmanager
def silent(url: str) -> Iterator[None]:
    """Silence a server until the end of the block, as if its machine hung.

    :param url: the URL of one of the server's databases.
    """
    folder = Path(url.partition("host=")[2])
    (first,) = (int(line) for line in (folder / "data/postmaster.pid").read_text().split()[:1])
    stopped = [first]
    try:
        # A stopped first process starts no further processes.
        os.kill(first, signal.SIGSTOP)
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                if f"\nPPid:\t{first}\n" in status.read_text():
                    stopped.append(int(status.parent.name))
                    os.kill(stopped[-1], signal.SIGSTOP)
        yield
    finally:
        for each in stopped:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


def _wait(url: str) -> None:
    def answers() -> bool:
        try:
            psycopg.connect(url.format("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    block_until(answers)
