"""A client of OpenStack logs in to a whole daemon, and finds the services in the catalog."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import exceptions
from keystoneauth1.identity import generic, v2, v3
from keystoneauth1.session import Session

from bootvol import passwords
from tests.daemons import TENANT
from tests.people import ACCESS_KEY, PASSWORD, PASSWORD_HASH, PEOPLE, SECRET_KEY
from tests.processes import BIN, Process, cli, process
from tests.waiting import LIMIT

DEFAULT: dict[str, Any] = {"user_domain_id": "default", "project_domain_name": "Default"}
VOLUMES = {"service_type": "volume", "region_name": "nova", "interface": "public"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with log-ins."""
    with process(tmp_path, identity=PEOPLE) as daemon:
        yield daemon


def test_keystoneauth(daemon: Process) -> None:
    url = f"{daemon.url}/identity"
    ann: dict[str, Any] = {"username": "ann", "password": PASSWORD}
    ways = [
        v3.Password(f"{url}/v3", project_name="demo", **ann, **DEFAULT),
        v3.Password(f"{url}/v3", project_id=TENANT, user_id="10", password=PASSWORD),
        generic.Password(url, project_name="demo", **ann, **DEFAULT),
        v2.Password(f"{daemon.url}/v2.0", tenant_name="demo", **ann),
    ]
    for auth in ways:
        session = Session(auth)
        assert session.get_project_id() == TENANT
        made = session.post(
            "/os-volumes", json={"volume": {"size": 1}}, endpoint_filter=VOLUMES
        ).json()["volume"]
        listed = session.get("/os-volumes", endpoint_filter=VOLUMES).json()["volumes"]
        assert made["id"] in [each["id"] for each in listed]
        compute = session.get_endpoint(service_type="compute")
        version = "v1.1" if isinstance(auth, v2.Password) else "v2"
        assert compute == f"{daemon.url}/{version}/{TENANT}"
    token = str(session.get_token())
    other = v3.Token(f"{url}/v3", token, project_name="other", project_domain_id="default")
    scoped = Session(other)
    assert scoped.get("/os-volumes", endpoint_filter=VOLUMES).json() == {"volumes": []}
    wrong = v3.Password(f"{url}/v3", username="ann", password="x", **DEFAULT)
    with pytest.raises(exceptions.Unauthorized):
        Session(wrong).get_token()


def test_no_secret_is_in_the_log(daemon: Process) -> None:
    """The log has no secrets, neither of successful log-ins nor of any failed ones.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `who=who, address=address)` ->
    `who=given, address=address)`.
    """
    url = f"{daemon.url}/identity/v3"
    session = Session(
        v3.Password(url, project_name="demo", username="ann", password=PASSWORD, **DEFAULT)
    )
    token = session.get_token()
    session.get(f"{url}/auth/tokens", headers={"X-Subject-Token": token})
    guesses = [f"guessed-secret-{number}" for number in range(8)]
    for guess in guesses:
        with pytest.raises(exceptions.HttpError):
            Session(v3.Password(url, username="ann", password=guess, **DEFAULT)).get_token()
        with pytest.raises(exceptions.HttpError):
            Session(v3.Password(url, username=guess, password=guess, **DEFAULT)).get_token()
    keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    anyone = Session()
    for credentials in (keys, {**keys, "secretKey": [SECRET_KEY]}, {**keys, "accessKey": "x"}):
        anyone.post(
            f"{daemon.url}/v2.0/tokens",
            json={"auth": {"apiAccessKeyCredentials": credentials, "tenantId": TENANT}},
            raise_exc=False,
        )
    session.delete(f"{url}/auth/tokens", headers={"X-Subject-Token": token})
    daemon.stop()
    log = daemon.log.read_text()
    assert "10 failed to log in from 127.0.0.1" in log
    assert "POST /identity/v3/auth/tokens" in log
    for secret in (PASSWORD, PASSWORD_HASH, SECRET_KEY, "HPAuth_", "guessed-secret"):
        assert secret not in log
    assert "Traceback" not in log


def test_a_token_outlives_the_daemon_and_a_revocation_too(daemon: Process) -> None:
    """A restart neither ends a token nor forgets a revocation.

    Break: `plugins/bootvol_plugins/embedded/revoked.py`: `await self._threads.run(files.replace,
    self._path, content)` -> `pass`.
    """
    url = f"{daemon.url}/identity/v3"
    auth = v3.Password(url, project_name="demo", username="ann", password=PASSWORD, **DEFAULT)
    session = Session(auth)
    kept = session.get_token()
    session.invalidate()
    revoked = session.get_token()
    session.delete(f"{url}/auth/tokens", headers={"X-Subject-Token": revoked})
    daemon.stop(signal.SIGKILL)
    daemon.start()
    anyone = Session()
    for token, status in ((kept, 200), (revoked, 401)):
        answer = anyone.get(
            f"{daemon.base}/os-volumes", headers={"X-Auth-Token": token}, raise_exc=False
        )
        assert answer.status_code == status


def test_hash_password(tmp_path: Path) -> None:
    made = cli("hash-password", stdin="tr0ub4dor &3\n")
    assert made.returncode == 0, made.stderr
    config = PEOPLE.replace(PASSWORD_HASH, made.stdout.strip())
    with process(tmp_path, identity=config) as daemon:
        auth = v3.Password(
            f"{daemon.url}/identity/v3",
            project_name="demo",
            username="ann",
            password="tr0ub4dor &3",
            **DEFAULT,
        )
        assert Session(auth).get("/os-volumes", endpoint_filter=VOLUMES).ok
    assert cli("hash-password", stdin="").returncode == 1


def test_hash_password_asks_twice_and_shows_nothing() -> None:
    ours, theirs = os.openpty()
    asking = subprocess.Popen(
        [BIN / "bootvol", "hash-password"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for _ in range(2):
        while not shown.endswith(b": "):
            shown += os.read(ours, 1024)
        os.write(ours, b"tr0ub4dor\n")
        shown += os.read(ours, 1024)
    made, _ = asking.communicate(timeout=LIMIT)
    os.close(ours)
    assert passwords.verify(made.decode().strip(), "tr0ub4dor")
    assert b"Repeat" in shown
    assert b"tr0ub4dor" not in shown
