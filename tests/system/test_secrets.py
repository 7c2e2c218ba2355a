"""No log, database, or error answer has a secret.

Every secret of these conversations has a mark. twistd writes messages of all levels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
import requests
from argon2 import PasswordHasher

from tests.daemons import TENANT, configuration
from tests.images import DISK
from tests.people import PASSWORD_HASH, PEOPLE
from tests.processes import Process, cli, process
from tests.servers import free_port
from tests.waiting import LIMIT

MARK = "MARKED"
PASSWORD = f"{MARK}-password"
SECRET_KEY = f"{MARK}-secret-key"
GUESS = f"{MARK}-guess"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

#: ann's password comes from a file, her key's secret from the environment.
CONFIG = PEOPLE.replace(f'"{PASSWORD_HASH}"', '"file:ann.hash"', 1)
WEB = """
[[sources]]
name = "web"
plugin = "http"
allow = ["http://127.0.0.1:{port}/"]
timeout = 1.0

[imports]
retries = 0
"""
V3 = "identity/v3/auth/tokens"
#: Wrong bodies by path, each with a different mistake.
WRONG: list[tuple[str, Any]] = [
    (V3, f'{{"auth": "{GUESS}'),
    (V3, f'"{GUESS}"'),
    (V3, {"auth": GUESS}),
    (V3, {"auth": {GUESS: GUESS}}),
    (V3, {"auth": {"identity": {"methods": [GUESS], "password": GUESS}}}),
    (V3, {"auth": {"identity": {"methods": ["password"], "password": {"user": GUESS}}}}),
    (V3, {"auth": {"identity": {"methods": ["token"], "token": {"id": [GUESS]}}}}),
    (V3, {"auth": {"identity": {"methods": ["token"], "token": {"id": GUESS}}}}),
    (V3, {"auth": {"identity": {"methods": ["token"], "token": {"id": GUESS * 1000}}}}),
    ("v2.0/tokens", {"auth": {"passwordCredentials": {"username": 1, "password": GUESS}}}),
    ("v2.0/tokens", {"auth": {"passwordCredentials": {"username": "ann", "password": GUESS}}}),
    ("v2.0/tokens", {"auth": {"passwordCredentials": {"username": "ann", "password": [GUESS]}}}),
    ("v2.0/tokens", {"auth": {"apiAccessKeyCredentials": {"accessKey": GUESS}}}),
    ("v2.0/tokens", {"auth": {"apiAccessKeyCredentials": {"secretKey": {"a": GUESS}}}}),
    ("v2.0/tokens", {"auth": {"token": {"id": GUESS}, "tenantName": "demo"}}),
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with secrets from a file and from the environment."""
    (tmp_path / "ann.hash").touch(mode=0o600)
    (tmp_path / "ann.hash").write_text(QUICK.hash(PASSWORD))
    config = "\n".join(
        'secret_hash = "env:ANNS_SECRET_HASH"' if line.startswith("secret_hash") else line
        for line in CONFIG.splitlines()
    )
    env = {"ANNS_SECRET_HASH": QUICK.hash(SECRET_KEY)}
    with process(tmp_path, WEB.format(port=free_port()), identity=config, env=env) as daemon:
        yield daemon


def holding(folder: Path, secrets: set[str]) -> list[tuple[str, str]]:
    """Return each file of a daemon with one of its secrets, and the secret."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    assert {"log", "bootvol.db", "revoked"} <= {each.name for each in files}
    return [
        (str(each), secret)
        for each in files
        for secret in secrets
        if secret.encode() in each.read_bytes()
    ]


def test_a_conversation(daemon: Process, tmp_path: Path) -> None:
    """No answer, log or database has a secret of a conversation.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `who=who, address=address)` ->
    `who=given, address=address)`.
    Break: `src/bootvol/api/http.py`: `|(?<=/tokens/).` -> ``.
    """
    said = []

    def post(path: str, body: Any, **more: Any) -> requests.Response:
        content = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": "application/json", **more}
        answer = requests.post(f"{daemon.url}/{path}", content, headers=headers, timeout=LIMIT)
        if answer.status_code >= 300:
            said.append(answer.text)
        return answer

    user = {"name": "ann", "domain": {"id": "default"}, "password": PASSWORD}
    identity = {"methods": ["password"], "password": {"user": user}}
    scope = {"project": {"id": TENANT}}
    logged_in = post(V3, {"auth": {"identity": identity, "scope": scope}})
    assert logged_in.status_code == 201
    token = logged_in.headers["X-Subject-Token"]
    pair = {"accessKey": "ABCDEFGHIJKL", "secretKey": SECRET_KEY}
    by_key = post("v2.0/tokens", {"auth": {"apiAccessKeyCredentials": pair, "tenantId": TENANT}})
    assert by_key.status_code == 200
    second = by_key.json()["access"]["token"]["id"]

    for path, body in WRONG:
        assert post(path, body).status_code in {400, 401, 429}, body
    for path in (f"v1.1/{TENANT}/os-volumes", "image/v2/images", "identity/v3/auth/projects"):
        for header in (GUESS, token + GUESS, "\xff" + GUESS):
            sent: dict[str, str | bytes]
            sent = {"X-Auth-Token": header.encode("latin-1"), "X-Subject-Token": GUESS}
            answer = requests.get(f"{daemon.url}/{path}", headers=sent, timeout=LIMIT)
            assert answer.status_code == 401
            said.append(answer.text)
    # URLs may be signed: a signed URL gives access to its image.
    signed = f"{daemon.config.read_text().partition('allow = [')[2].split(chr(34))[1]}i?sig={GUESS}"
    volumes = f"v1.1/{TENANT}/os-volumes"
    wanted = {"volume": {"size": 1, "imageRef": signed}}
    assert post(volumes, wanted, **{"X-Auth-Token": token}).status_code >= 400

    headers = {"X-Auth-Token": token, "X-Subject-Token": token}
    # Clients of identity v2.0 revoke a token so.
    gone = requests.delete(f"{daemon.url}/v2.0/tokens/{token}", headers=headers, timeout=LIMIT)
    assert gone.status_code == 404
    assert requests.delete(f"{daemon.url}/{V3}", headers=headers, timeout=LIMIT).status_code == 204
    daemon.stop()
    log = daemon.log.read_text()
    assert "Traceback" not in log
    assert f"POST /{V3}" in log
    assert not [each for each in said if MARK in each or token in each]
    secrets = {MARK, token, second, "HPAuth_"}
    found = [each for each in holding(tmp_path, secrets) if not each[0].endswith("/identity/key")]
    assert found == []


class _Signed(BaseHTTPRequestHandler):
    """Images of signed URLs.  The image ``gone`` is deleted after the first look."""

    def do_GET(self) -> None:
        looks = self.headers.get("Range") == "bytes=0-0"
        if "?" not in self.path or ("/gone" in self.path and not looks):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(DISK)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(DISK)

    def log_message(self, *_: object) -> None:
        """Write no log."""


def test_signed_urls(tmp_path: Path) -> None:
    """The signature of an image's URL is in no log, and operators do not see the signature.

    Break: `src/bootvol/event_log.py`: `without_query(image.id)` -> `image.id`.
    Break: `src/bootvol/errors/missing.py`: `Image {without_query(reference)} could` -> `Image
    {reference} could`.
    Break: `src/bootvol/api/nova/views.py`: `without_query(value.image_id)` -> `value.image_id`.
    Break: `src/bootvol/api/access.py`: `path=path_for_log(request),` -> `path=request.path,`.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _Signed) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            web = WEB.format(port=server.server_port)
            with process(tmp_path, web, backend="cache_gib = 1") as daemon:
                for name in ("there", "gone"):
                    daemon.create(f"http://127.0.0.1:{server.server_port}/{name}?sig={GUESS}")
                assert sorted(daemon.until_settled()) == ["available", "error"]
                (cached,) = daemon.get("golden-volumes")["goldenVolumes"]
                url = f"http://127.0.0.1:{server.server_port}/there?sig={GUESS}"
                assert daemon.get(f"images/{quote(url, safe='')}")["image"]["id"] == url
                daemon.stop()
        finally:
            server.shutdown()
            thread.join()
    assert cached["imageRef"].endswith("/there?…")
    log = daemon.log.read_text()
    assert "/gone?… could not be found" in log
    assert "/there?…" in log
    assert "%2Fthere…" in log
    assert MARK not in log


def test_nobody_else_may_read_what_the_daemon_keeps(daemon: Process) -> None:
    """The machine's other users can read no file of the daemon.

    Break: `src/bootvol/store/database.py`: `file.touch(mode=0o600)` -> `file.touch(mode=0o644)`.
    Break: `plugins/bootvol_plugins/file.py`: `os.close(os.open(path, flags, 0o600, dir_fd=folder))`
    -> `os.close(os.open(path, flags, 0o644, dir_fd=folder))`.
    """
    number = daemon_volume(daemon)
    kept = [
        *daemon.folder.glob("bootvol.db*"),
        *(daemon.folder / "identity").iterdir(),
        *daemon.files(),
    ]
    assert {"bootvol.db", "bootvol.db-wal", "key"} <= {each.name for each in kept}
    assert len(daemon.files()) == number
    assert [each.name for each in kept if each.stat().st_mode & 0o077] == []


def daemon_volume(daemon: Process) -> int:
    """Create a volume; return the id of the finished volume."""
    env = {
        "OS_AUTH_URL": f"{daemon.url}/identity",
        "OS_USERNAME": "ann",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
    }
    made = cli("volume", "create", "--size", "1", "--wait", env=env)
    assert made.returncode == 0, made.stderr
    return int(json.loads(made.stdout)["id"])


def test_the_command_line(daemon: Process) -> None:
    """The command line repeats no password and no token, and accepts none visible to others.

    Break: `src/bootvol/cli/http.py`: `raise CommandFailed(_told(error), code, error.code, after)`
    -> `raise CommandFailed(f"{_told(error)}{headers}{sent!r}", code, error.code, after)`.
    """
    env = {"OS_AUTH_URL": f"{daemon.url}/identity", "OS_USERNAME": "ann", "OS_PROJECT_NAME": "demo"}
    for more in (
        {"OS_PASSWORD": GUESS},
        {"OS_TOKEN": GUESS},
        {"BOOTVOL_TOKEN": GUESS},
        {"OS_PASSWORD": GUESS, "OS_AUTH_URL": f"http://127.0.0.1:{free_port()}"},
    ):
        refused = cli("volume", "list", env={**env, **more})
        assert refused.returncode in {3, 5}
        assert MARK not in refused.stdout + refused.stderr
    shown = cli("--help")
    assert "--token" in shown.stdout
    assert "--password" not in shown.stdout


@pytest.mark.parametrize(
    "change",
    [
        ("password_hash =", f'password_hash = "{GUESS}"'),
        ("password_hash =", f'password_hash = ["{GUESS}"]'),
        ("secret_hash =", f'secret_hash = {{ x = "{GUESS}" }}'),
        ("secret_hash =", f'secrets_hash = "{GUESS}"'),
    ],
)
def test_what_is_said_of_a_configuration(tmp_path: Path, change: tuple[str, str]) -> None:
    """The message about a mistake in a secret of the configuration does not contain the secret.

    Break: `src/bootvol/validation.py`: `return "(hidden)" if secret or tables else` -> `return`.
    """
    begin, line = change
    (tmp_path / "images").mkdir()
    wrong = [line if each.startswith(begin) else each for each in PEOPLE.splitlines()]
    config = tmp_path / "twistd.conf"
    config.write_text(configuration(1, identity="\n".join(wrong)))
    told = cli("check-config", str(config))
    assert told.returncode == 1
    assert "identity.users" in told.stderr
    assert MARK not in told.stdout + told.stderr
