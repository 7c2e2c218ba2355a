"""The plugin without a real Keystone: settings, and wrong answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol import settings
from bootvol.errors import ConfigurationError, IdentityUnavailable, Unauthorized
from bootvol.model import Caller
from bootvol_plugins.keystone.flights import Flights
from bootvol_plugins.keystone.options import KeystoneOptions
from tests.daemons import configuration
from tests.openstack.people import Later, identity
from tests.servers import Server, serve

ROOT = Path(__file__).parents[2]
SECRET = "the-secret-itself"
LEAST = {"url": "http://k:5000", "username": "bootvol", "password": SECRET}

Answering = Callable[[Request], Any]


def token(ends: str = "2100-01-01T00:00:00.000000Z", **more: Any) -> bytes:
    """Return Keystone's description of a token."""
    shown = {
        "expires_at": ends,
        "user": {"id": "u"},
        "project": {"id": "p"},
        "roles": [{"name": "member"}],
        **more,
    }
    return orjson.dumps({"token": shown})


class Fake(Resource):
    """A server in Keystone's place.

    :ivar login: answers log-ins, ``question`` answers questions about a token.
    :ivar asked: the number of questions, ``logins`` the number of log-ins.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.logins = 0
        self.login: Answering = self.logged_in
        self.question: Answering = lambda request: token()

    def render_POST(self, request: Request) -> Any:
        self.logins += 1
        return self.login(request)

    def render_GET(self, request: Request) -> Any:
        self.asked += 1
        return self.question(request)

    def logged_in(self, request: Request) -> bytes:
        """Issue a token."""
        request.setResponseCode(201)
        request.setHeader("X-Subject-Token", f"own-{self.logins}")
        return token()


@pytest.fixture
def fake() -> Fake:
    """The answers of the server."""
    return Fake()


@pytest.fixture
def server(fake: Fake) -> Iterator[Server]:
    """The server, with its port."""
    with serve(fake) as server:
        yield server


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The log lines of the test."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event["log_namespace"].startswith("bootvol_plugins.keystone"):
            lines.append(event["log_format"].format(**event))

    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    yield lines
    publisher.removeObserver(observe)


async def asked(server: Server, times: int = 1, clock: Any = None, **more: Any) -> list[object]:
    """Return the outcomes of repeated questions about a token: callers, or errors."""
    made = identity({**LEAST, "url": server.url, **more}, clock or Later())
    found: list[object] = []
    try:
        for _ in range(times):
            try:
                found.append(await made.authenticate("somebody's"))
            except (Unauthorized, IdentityUnavailable) as error:
                found.append(error)
    finally:
        await made.close()
    return found


def status(code: int, **headers: str) -> Answering:
    """Return an answer with a status."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return token()

    return answer


def never(_request: Request) -> Any:
    """Return no answer."""
    return NOT_DONE_YET


def trickling(request: Request) -> Any:
    """Begin an answer, and stop."""
    request.write(b'{"token":')
    return NOT_DONE_YET


def patience(answering: Answering) -> float:
    """Return the timeout in seconds."""
    return 0.3 if answering in (never, trickling) else 10.0


def broken_off(request: Request) -> Any:
    """Break off in the middle of the answer."""
    request.setHeader("Content-Length", "1000")
    request.write(b'{"token":')
    request.loseConnection()
    return NOT_DONE_YET


def says(body: bytes) -> Answering:
    """Return an answer with a body."""
    return lambda request: body


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (status(500), "localhost answers 500."),
        (status(503), "localhost answers 503."),
        (status(403), "localhost answers 403 to bootvol's question about a token."),
        (status(400), "localhost answers 400 to bootvol's question about a token."),
        (status(401), "localhost answers 401 to bootvol's question about a token."),
        (status(301, Location="/elsewhere"), "localhost answers 301 to bootvol's question about"),
        (never, "longer than 0.3 seconds."),
        (trickling, "longer than 0.3 seconds."),
        (broken_off, "broke off"),
        (says(b""), "localhost answers without a valid token."),
        (says(b"<html>"), "localhost answers without a valid token."),
        (says(b"[]"), "localhost answers without a valid token."),
        (says(b'{"token": {}}'), "localhost answers without a valid token."),
        (says(token(user=None)), "localhost answers without a valid token."),
        (says(token(ends="soon")), "localhost answers without a valid token."),
        (says(token(roles=[{"name": "x" * 300_000}])), "localhost answers without a valid token."),
    ],
)
@ensureDeferred
async def test_an_answer_that_is_none(
    fake: Fake, server: Server, logged: list[str], question: Answering, told: str
) -> None:
    fake.question = question
    (error,) = await asked(server, timeout=patience(question))
    assert isinstance(error, IdentityUnavailable)
    assert error.retry_after == 5
    (line,) = logged
    assert line.startswith("no token can be validated: ")
    assert told in line
    assert SECRET not in line


def issues(*texts: bytes) -> Answering:
    """Return the answer to a log-in with any bytes as tokens."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(201)
        request.responseHeaders.setRawHeaders(b"X-Subject-Token", texts)
        return token()

    return answer


@pytest.mark.parametrize(
    "login",
    [
        *(status(401), status(403), status(500), never, says(b"")),
        *(issues(), issues(b""), issues(b"\xff"), issues(b"\xc3\xa9"), issues(b"a b")),
    ],
)
@ensureDeferred
async def test_a_login_that_fails(fake: Fake, server: Server, login: Answering) -> None:
    fake.login = login
    found = await asked(server, times=2, timeout=patience(login))
    assert [type(each) for each in found] == [IdentityUnavailable] * 2
    assert not fake.asked


@ensureDeferred
async def test_keystone_says_when_to_come_again(fake: Fake, server: Server) -> None:
    fake.question = status(429, Retry_After="7")
    (error,) = await asked(server)
    assert isinstance(error, IdentityUnavailable)
    assert error.retry_after == 7


@ensureDeferred
async def test_what_goes_on_is_logged_once(fake: Fake, server: Server, logged: list[str]) -> None:
    made = identity({**LEAST, "url": server.url}, Later())
    fake.question = status(500)
    for number in range(3):
        with pytest.raises(IdentityUnavailable):
            await made.authenticate(f"token-{number}")
    fake.question = says(token())
    await made.authenticate("token-3")
    await made.close()
    assert logged == [
        "no token can be validated: localhost answers 500.",
        "tokens are validated again",
    ]


@pytest.mark.parametrize("year", [2001, 2100])
@ensureDeferred
async def test_the_machines_clock_may_be_wrong(fake: Fake, server: Server, year: int) -> None:
    """By the machine's clock, tokens have ended long ago, or are issued in many years."""
    day = f"{year}-01-01T"
    fake.question = lambda _: token(f"{day}01:00:00Z", issued_at=f"{day}00:00:00Z")

    def logged_in(request: Request) -> bytes:
        fake.logged_in(request)
        return token(f"{day}01:00:00Z", issued_at=f"{day}00:00:00Z")

    fake.login, clock = logged_in, Later()
    made = identity({**LEAST, "url": server.url, "cache_seconds": 3000.0}, clock)
    for _ in range(3):
        await made.authenticate("somebody's")
    assert (fake.logins, fake.asked) == (1, 1)
    clock.advance(3001)
    await made.authenticate("somebody's")
    assert (fake.logins, fake.asked) == (1, 2)
    clock.advance(300)
    await made.authenticate("another's")
    assert (fake.logins, fake.asked) == (2, 3)
    await made.close()


@ensureDeferred
async def test_no_more_are_kept_than_may_be(
    fake: Fake, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootvol_plugins.keystone.identity._WRONG_TOKENS", 10)
    made = identity({**LEAST, "url": server.url, "cache_tokens": 3}, Later())
    for name in ("a", "b", "c", "d"):
        await made.authenticate(name)
    assert fake.asked == 4
    for name in ("d", "c", "b"):
        await made.authenticate(name)
    assert fake.asked == 4
    await made.authenticate("a")
    assert fake.asked == 5
    # The cache also bounds refused tokens; they evict no valid ones.
    fake.question = status(404)
    for number in range(12):
        with pytest.raises(Unauthorized):
            await made.authenticate(f"wrong-{number}")
    before = fake.asked
    assert await made.authenticate("a") == Caller("u", "p", frozenset({"member"}))
    with pytest.raises(Unauthorized):
        await made.authenticate("wrong-11")
    assert fake.asked == before
    with pytest.raises(Unauthorized):
        await made.authenticate("wrong-0")
    assert fake.asked == before + 1
    await made.close()


@ensureDeferred
async def test_all_who_wait_for_a_login_wait_for_one(fake: Fake, server: Server) -> None:
    made = identity({**LEAST, "url": server.url}, Later())
    waiting = [Deferred.fromCoroutine(made.authenticate(f"token-{n}")) for n in range(50)]
    assert len(await gatherResults(waiting)) == 50
    assert (fake.logins, fake.asked) == (1, 50)
    await made.close()


async def fails(waited: Awaitable[object], kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        await waited


@ensureDeferred
async def test_who_leaves_lets_the_others_wait() -> None:
    flights: Flights[int] = Flights()
    cancelled: list[bool] = []
    errand: Deferred[int] = Deferred(lambda _: cancelled.append(True))

    async def begin() -> int:
        return await errand

    first, second = [Deferred.fromCoroutine(flights.join(b"", begin)) for _ in range(2)]
    first.cancel()
    await fails(first, CancelledError)
    assert not cancelled
    errand.callback(1)
    assert await second == 1


@ensureDeferred
async def test_when_the_last_one_leaves_the_errand_ends() -> None:
    flights: Flights[int] = Flights()
    cancelled: list[bool] = []

    async def begin() -> int:
        await Deferred(lambda _: cancelled.append(True))
        return 1

    waiting = [Deferred.fromCoroutine(flights.join(b"", begin)) for _ in range(2)]
    for each in waiting:
        each.cancel()
        await fails(each, CancelledError)
    assert cancelled == [True]

    async def again() -> int:
        return 2

    assert await flights.join(b"", again) == 2


def load(folder: Path, lines: str) -> Any:
    """Return the plugin's settings from a configuration file with these lines."""
    file = folder / "twistd.conf"
    file.write_text(configuration(8776, identity=f'[identity]\nplugin = "keystone"\n{lines}'))
    return settings.load(file).identity.options


@pytest.mark.parametrize(
    "url", ["https://k/identity", "https://k/identity/v3", "https://k/identity/"]
)
def test_the_version_may_be_left_out(tmp_path: Path, url: str) -> None:
    options = load(tmp_path, f'url = "{url}"\nusername = "b"\npassword = "{SECRET}"')
    assert options.url == "https://k/identity/v3"
    assert SECRET not in repr(options)


def test_secrets_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    monkeypatch.setenv("OWN_SECRET", "another")
    options = load(tmp_path, 'url = "http://k"\nusername = "b"\npassword = "file:password"')
    assert options.password.get_secret_value() == SECRET
    credential = 'application_credential_id = "i"\napplication_credential_secret = "env:OWN_SECRET"'
    options = load(tmp_path, f'url = "http://k"\n{credential}')
    assert options.application_credential_secret.get_secret_value() == "another"


def test_it_is_as_documented(tmp_path: Path) -> None:
    (tmp_path / "keystone-password").write_text(SECRET)
    for file, mark in (("docs/identity.md", ""), ("twistd.conf", "# ")):
        text = (ROOT / file).read_text()
        shown = text.partition(f'{mark}plugin = "keystone"\n')[2].partition("\n\n")[0]
        table = shown.partition("```")[0].replace(mark or "\0", "")
        assert load(tmp_path, table).password.get_secret_value() == SECRET
    comment = (ROOT / "twistd.conf").read_text().partition('# Plugin "keystone"')[2]
    told = comment.partition("# [policy]")[0]
    for name, field in KeystoneOptions.model_fields.items():
        assert re.search(rf"^#.*\b{name}\b", told, re.MULTILINE)
        if isinstance(field.default, float | int):
            assert re.search(rf"\({field.default}\)", told)


BY_PASSWORD = f'username = "b"\npassword = "{SECRET}"'


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (BY_PASSWORD, "identity.url: is missing."),
        (
            f'url = "ftp://k"\n{BY_PASSWORD}',
            "identity.url: (hidden): this is not an http or https",
        ),
        (f'url = "http://k/v2.0/"\n{BY_PASSWORD}', "identity.url: (hidden): this is version 2.0"),
        (f'url = "http://k?x=1"\n{BY_PASSWORD}', "identity.url: (hidden): this has a query."),
        ('url = "http://k"', "bootvol's own user is given either by username and password, or by"),
        ('url = "http://k"\nusername = "b"', "bootvol's own user is given either by username and"),
        (
            f'url = "http://k"\n{BY_PASSWORD}\napplication_credential_id = "i"',
            "bootvol's own user is given either by username and password, or by",
        ),
        (f'url = "http://k"\n{BY_PASSWORD}\ncache_seconds = -1.0', "identity.cache_seconds: -1.0:"),
        (f'url = "http://k"\n{BY_PASSWORD}\ncash = 1', "identity.cash: the key is unknown."),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, lines: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, lines)
    assert told in caught.value.message
    assert f"{tmp_path}/twistd.conf: identity" in caught.value.message
    assert SECRET not in caught.value.message
