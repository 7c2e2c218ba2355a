"""The command line, with services that answer wrongly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from bootvol.cli import boot, commands, http
from bootvol.cli.client import Client
from bootvol.cli.failures import CommandFailed
from bootvol.cli.login import Access

Answering = Callable[[bytes, int], Client]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Serve a body with a status at all paths; return a client of the server."""
    servers: list[HTTPServer] = []

    def serve(body: bytes, status: int = 200) -> Client:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}/v1.1/t"
        return Client(lambda: Access(endpoint, "token"))

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b"x",
        b"\xff",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"volumes": null}',
        b'{"volumes": {"id": 1}}',
        b'{"volumes": [1]}',
        b'{"volumes": [{}]}',
        b'{"volumes": [{"id": {}}]}',
        b'{"volumes": [{"id": %s}]}' % (b"9" * 5000),
        b'{"volumes": [{"id": 1}], "volumes_links": [{"rel": "next"}]}',
    ],
    ids=lambda body: str(body[:40]),
)
def test_an_answer_of_another_form_ends_the_command(
    answering: Answering, body: bytes, status: int
) -> None:
    """The command ends with a message after any answer.

    Break: `src/bootvol/cli/http.py`: `if not isinstance(found, Answer):` -> `if not url:`.
    """
    client = answering(body, status)
    with pytest.raises(CommandFailed):
        client.all("os-volumes", "volumes")


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_takes_little_memory(
    answering: Answering, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command reads no more than a fixed number of bytes of an answer.

    Break: `src/bootvol/cli/http.py`: `if len(content) > _LONGEST:` -> `if not url:`.
    """
    monkeypatch.setattr(http, "_LONGEST", 1000)
    client = answering(b'{"volumes": []' + b" " * 2000 + b"}", status)
    with pytest.raises(
        CommandFailed, match="more than 1000 bytes" if status == 200 else "HTTP 500"
    ):
        client.answer("os-volumes")


VOLUME = {"id": 1, "status": "available", "sourceImageRef": "i", "attachments": []}
IN_USE = {"id": 1, "status": "in-use", "attachments": [{"serverId": "s"}]}
#: Right answers by the ends of their paths.  The last one that fits is given.
RIGHT: dict[str, Any] = {
    "images/detail": {
        "images": [{"id": "i", "name": "i", "OS-EXT-IMG-SIZE:size": 1, "minDisk": 0}],
        "images_links": [{"rel": "next", "href": "http://h/?marker=i"}],
    },
    "images/i": {"image": {"id": "i"}},
    "images/n": {"image": {"id": "i"}},
    "images?name=n": {"images": [{"id": "i"}]},
    "golden-volumes": {
        "goldenVolumes": [{"imageRef": "i", "backend": "b", "bytes": 1, "hits": 1, "usedAt": "t"}],
        "use": {"b": {"hits": 1, "misses": 1}},
    },
    "os-volumes": {
        "volume": {"id": 1, "status": "creating"},
        "volumes": [{"id": 1, "displayName": "v", "size": 1, "status": "error"}],
    },
    "volumes/1": {"volume": VOLUME},
    "volumes/2": {"volume": {**VOLUME, "id": 2, "status": "error"}},
    "volumes/3": {"volume": IN_USE},
    "error": {"error": {"code": "c", "message": "m", "remedy": "r"}},
    "import": {
        "import": {
            "phase": "done",
            "position": None,
            "bytesDone": 1,
            "bytesTotal": 1,
            "warnings": [{"code": "c", "message": "m"}],
        }
    },
    "os-quota-sets/t": {"quota_set": {"volumes": 1}},
    "limits": {"limits": {}},
    "os-volume-types": {
        "volume_types": [{"id": "1", "name": "t", "extra_specs": {"k": "v"}}],
        "volume_type": {"id": "1"},
    },
    "connection": {"connection": {"address": "/dev/null"}},
    "os-volume_attachments": {"volumeAttachment": {"id": 1}},
}
COMMANDS = [
    "image list",
    "image cached",
    "volume list",
    "volume list --json",
    "volume create --size 1 --image i --wait",
    "volume create --size 1 --image n",
    "volume show 1",
    "volume show 2",
    "volume delete 2 --wait",
    "volume detach 3",
    "volume detach 3 --wait",
    "volume boot 1",
    "quota show t",
    "quota set t --volumes 1",
    "limits",
    "type list",
    "type create t",
]
WRONG = [None, True, -1, 10**400, 1e300, "x", "\ud800", "http://[", [], [None], [1], {}, {"x": 1}]


class Answers(Client):
    """A service whose answers have one wrong place.

    :param place: the keys that lead to the wrong value; None for right answers only.
    """

    def __init__(self, path: str, place: Sequence[Any] | None, wrong: Any) -> None:
        super().__init__(lambda: Access("http://h/v1.1/t", ""))
        self._wrong = path, place, wrong
        self.asked: list[str] = []

    def _call(self, method: str, path: str, body: object = None) -> Any:
        self.asked.append(path)
        if len(self.asked) > 12:
            raise CommandFailed("the service is tired of questions")
        if method == "DELETE":
            return None
        found = next((each for each in reversed(RIGHT) if path.endswith(each)), None)
        if found is None:
            raise CommandFailed("no such thing", 4, 404)
        answer = json.loads(json.dumps(RIGHT[found]))
        spoilt, place, wrong = self._wrong
        if found == spoilt and place is not None:
            answer = put(answer, place, wrong)
        return json.loads(json.dumps(answer), object_hook=http.Answer)


def put(value: Any, place: Sequence[Any], wrong: Any) -> Any:
    """Return a value with something else at a place."""
    if not place:
        return wrong
    value[place[0]] = put(value[place[0]], place[1:], wrong)
    return value


def places(value: Any) -> Iterator[list[Any]]:
    """Yield the keys that lead to each value within a value."""
    inside: dict[Any, Any] = {}
    if isinstance(value, dict | list):
        inside = value if isinstance(value, dict) else dict(enumerate(value))
    for key, inner in inside.items():
        yield [key]
        yield from ([key, *rest] for rest in places(inner))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_a_message(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value anywhere in an answer ends no command in a traceback.

    Break: `src/bootvol/cli/shapes.py`: `return isinstance(value, shape)` -> `return True`
    """
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr("bootvol.cli.reservation.PATIENCE", -1.0)
    monkeypatch.setattr(boot, "boot", lambda *_: 0)

    def run(client: Client) -> str:
        monkeypatch.setattr(commands, "Client", lambda _access: client)
        try:
            commands.bootvol(command.split(), standalone_mode=False)
        except CommandFailed as failure:
            return str(failure)
        return ""

    right = Answers("", None, None)
    assert "form" not in run(right)
    used = {next((e for e in reversed(RIGHT) if path.endswith(e)), "") for path in right.asked}
    for path in used - {""}:
        for place in places(RIGHT[path]):
            for wrong in WRONG:
                try:
                    run(Answers(path, place, wrong))
                except Exception as error:
                    pytest.fail(f"{wrong!r} at {path} {place}: {error!r}")
    capsys.readouterr()
