"""The command line, with services that answer wrongly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bootvol.cli import http
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
        client.get("os-volumes")
