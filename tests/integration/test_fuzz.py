"""Random requests, right and wrong, on real connections of a whole daemon."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure

from bootvol.testing.backends import noise
from tests.daemons import Running, pause
from tests.fuzzing import fuzz
from tests.integration.test_matrix import ADMIN, IDENTITY, ROWS, token

ROUTES = [(row.method, path) for row in ROWS for path in row.paths]
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "get", "\0"])


def words(text: str) -> st.SearchStrategy[str]:
    """Return a strategy for one word of a text."""
    return st.sampled_from(text.split())


#: Parts of paths and queries besides those of the routes.
ODD = words(
    "/ // .. %00 %ff %2f 1 0 -1 99999999999999999999 none detail .json ?limit=1 ?limit=x ?offset=-1"
    " ?name=%00 ?marker=1 & = ; # é"
)
#: Right types are frequent; otherwise no test would get past this check.
TYPES = st.just("application/json") | words(
    "application/json application/json;charset=utf-16 APPLICATION/JSON; text/plain text/xml ;"
    " application/x-www-form-urlencoded multipart/form-data multipart/form-data;boundary=\xff"
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | words("here demo member vda 1 2 \0 http://127.0.0.1/x 00000000-0000-4000-8000-000000000000")
    | st.just("x" * 300)
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SERVER = {
    "server": {
        **{"name": "n", "flavorRef": "100", "imageRef": "", "key_name": "k", "user_data": "eA=="},
        **{"config_drive": True, "metadata": {"k": "v"}, "networks": "auto", "min_count": 1},
        "block_device_mapping": [{"device_name": "vda", "volume_id": "1"}],
        "block_device_mapping_v2": [
            {"uuid": "1", "source_type": "volume", "destination_type": "volume", "boot_index": 0}
        ],
    }
}
VOLUME = {
    "volume": {
        **{"size": 1, "display_name": "n", "display_description": "d", "name": "n"},
        **{"imageRef": "here", "snapshot_id": None, "volume_type": None, "metadata": {"k": "v"}},
        "availability_zone": "nova",
    }
}
PASSWORD = {"user": {"name": "admin", "domain": {"id": "default"}, "password": "x"}}
SCOPE = {"project": {"name": "demo", "domain": {"name": "Default"}}}
#: Parts of paths, each with a right body that has all possible keys.
RIGHT: list[tuple[str, Any]] = [
    ("volumes", VOLUME),
    ("volumes/", VOLUME),
    ("snapshots", {"snapshot": {"volume_id": 1, "display_name": "n", "force": True, "name": "n"}}),
    ("os-volume_attachments", {"volumeAttachment": {"volumeId": 1, "device": "/dev/vdb"}}),
    ("servers", SERVER),
    ("os-volumes_boot", SERVER),
    *(("action", {each: None}) for each in ("os-start", "os-stop")),
    ("action", {"reboot": {"type": "HARD"}}),
    ("action", {"os-getConsoleOutput": {"length": 5}}),
    ("os-keypairs", {"keypair": {"name": "k", "public_key": "ssh-ed25519 AAAA"}}),
    ("os-volume-types", {"volume_type": {"name": "t", "extra_specs": {"a": "b"}}}),
    ("extra_specs", {"extra_specs": {"k": "v"}}),
    ("extra_specs/", {"k": "v"}),
    ("metadata", {"metadata": {"k": "v"}}),
    ("metadata/", {"meta": {"k": "v"}}),
    ("os-quota-sets", {"quota_set": {"volumes": 1, "gigabytes": 5, "snapshots": 1}}),
    ("tokens", {"auth": ADMIN}),
    ("tokens", {"auth": {"token": {"id": "{admin}"}, "tenantId": "1"}}),
    ("tokens", {"auth": {"apiAccessKeyCredentials": {"accessKey": "a", "secretKey": "s"}}}),
    ("v3", {"auth": {"identity": {"methods": ["password"], "password": PASSWORD}}}),
    ("v3", {"auth": {"identity": {"methods": ["token"], "token": {"id": "{admin}"}}}}),
    ("v3", {"auth": {"identity": {"methods": ["password"], "password": PASSWORD}, "scope": SCOPE}}),
]


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """Make a body: a right body of the path with some other values, or any body."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON.map(orjson.dumps) | st.binary(max_size=40) | st.just(b""))
    fitting = [each for word, each in RIGHT if word in path] or [each for _, each in RIGHT]
    body = draw(st.sampled_from(fitting))
    return orjson.dumps(changed(draw, body, draw(st.sampled_from([0, 5, 5, 40]))))


def changed(draw: st.DrawFn, value: Any, percent: int) -> Any:
    """Return JSON with some values replaced.

    :param percent: percentage of replaced values.
    """
    if draw(st.integers(0, 99)) < percent:
        return draw(JSON)
    if isinstance(value, dict):
        return {
            key: changed(draw, each, percent)
            for key, each in value.items()
            if percent == 0 or draw(st.integers(0, 4))
        }
    return [changed(draw, each, percent) for each in value] if isinstance(value, list) else value


#: Headers written by the request itself: wrong lengths, codings, and others.
HEADERS = st.sampled_from(
    [
        *(b"Content-Length: 5", b"Content-Length: x", b"Content-Length: -1", b"Content-Length:"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue"),
        *(b"Host: \xff", b"Host: a..b", b"Host:", b"Connection: close", b"X-Auth-Token: \xff"),
        *(b"Cookie: a=\xff", b"Range: bytes=0-", b"Accept: text/html", b"\xff: x", b"no colon"),
        *(b"X-Subject-Token: x", b"Authorization: Basic \xff", b" folded", b"X: " + b"x" * 17000),
    ]
)


@st.composite
def paths(draw: st.DrawFn, path: str) -> str:
    """Make a path: the path of a route, or a similar one."""
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(path)))
        path = path[:at] + draw(ODD) + path[at + draw(st.integers(0, 3)) :]
    return path


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """Split a body into chunks, mostly in a wrong form."""
    made = b""
    while body:
        length = draw(st.integers(1, len(body)))
        made += draw(st.sampled_from([b"%x\r\n", b"%X;a=b\r\n", b"0%x\r\n", b"-%x\n"])) % length
        made += body[:length] + draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b""]))
        body = body[length:]
    return made + draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b""]))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Make a request; placeholders such as ``{admin}`` stand for tokens."""
    seldom = st.integers(0, 4).map(lambda number: number == 0)
    method, path = draw(st.sampled_from(ROUTES))
    path = path.replace("/9", draw(st.sampled_from(["/1", "/2", "/9"])))
    if draw(seldom):
        method, path = draw(METHODS), draw(paths(path))
    body = draw(bodies(path)) if method in {"POST", "PUT"} or draw(seldom) else b""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: h"]
    who = draw(words("admin admin admin member member other wrong nobody"))
    if who != "nobody":
        lines.append(b"X-Auth-Token: {%s}" % who.encode())
    if body:
        lines.append(b"Content-Type: " + draw(TYPES).encode("latin-1"))
    if draw(seldom):
        lines += draw(st.lists(HEADERS, max_size=2))
    if body and draw(seldom):
        lines.append(b"Transfer-Encoding: chunked")
        body = draw(chunked(body))
    elif body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with all callers and an image."""
    daemon = Running(tmp_path, identity=IDENTITY)
    (daemon.images / "here").write_bytes(noise(1000))
    yield daemon
    await daemon.stop()


@pytest_twisted.async_fixture
async def tokens(daemon: Running) -> dict[bytes, bytes]:
    """The placeholders of requests, and their tokens."""
    callers = ("admin", "member", "other")
    return {b"{%s}" % who.encode(): (await token(daemon, who)).encode() for who in callers}


async def answers(daemon: Running, sent: list[bytes]) -> bytes:
    """Send pieces on a new connection; return all answers."""
    channel: Any = daemon.site.buildProtocol(None)
    transport = StringTransport()
    channel.makeConnection(transport)
    for piece in sent:
        channel.dataReceived(piece)
        await idle(daemon, channel)
    channel.connectionLost(Failure(ConnectionDone()))
    return bytes(transport.value())


async def idle(daemon: Running, channel: Any) -> None:
    """Wait until all complete requests are answered."""
    while True:
        await pause(0)
        if not (daemon.site.at_work or channel.is_ahead or channel.is_behind):
            return


@fuzz(150)
@given(asked=st.lists(requests(), min_size=1, max_size=3), data=st.data())
@ensureDeferred
async def test_no_request_gives_a_server_error(
    daemon: Running, tokens: dict[bytes, bytes], asked: list[bytes], data: st.DataObject
) -> None:
    """Heads and bodies of all content types, plain or chunked, by all callers, on all routes.

    Break: `src/bootvol/api/http.py`: `except orjson.JSONDecodeError as error:` -> `except KeyError as error:`
    """  # noqa: E501
    sent = b"".join(asked)
    for written, meant in tokens.items():
        sent = sent.replace(written, meant)
    cut = data.draw(st.integers(0, len(sent)))
    with capturedLogs() as logged:
        answered = await answers(daemon, [sent[:cut], sent[cut:]])
    statuses = [int(each) for each in re.findall(rb"^HTTP/1\.1 (\d+)", answered, re.MULTILINE)]
    # 501: no hypervisor is configured.
    assert all(each < 500 or each == 501 for each in statuses)
    assert not [formatEvent(each) for each in logged if each["log_level"] is LogLevel.critical]
