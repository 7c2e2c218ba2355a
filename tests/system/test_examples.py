"""The examples of docs/api.md run in order, and the answers are the documented ones."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests

from bootvol.api.nova.dialect import NOVA
from bootvol.testing.backends import noise
from tests.daemons import TENANT
from tests.hypervisors import MEMORY, installed
from tests.processes import process
from tests.waiting import LIMIT, block_until

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
#: The documented daemon's name in the header Host.
HOST = "bootvol.example:8776"


@attrs.frozen
class Example:
    """A request, and its answer.

    :ivar path: the path below the tenant's base URI, or from the root.
    """

    line: int
    method: str
    path: str
    token: str
    body: str
    status: int
    answer: Any

    @property
    def url(self) -> str:
        """The path from the root."""
        return self.path if self.path.startswith("/") else f"/v1.1/{TENANT}/{self.path}"


def read(text: str) -> list[Example]:
    """Return the examples of a document: its blocks of ``http``."""
    found = []
    for block in re.finditer(r"^```http\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        request, _, answer = block[1].partition("\n\n")
        first, _, rest = request.partition("\n")
        token = "ann"
        if rest.startswith("X-Auth-Token: "):
            header, _, rest = rest.partition("\n")
            token = header.partition(": ")[2]
        method, path = first.split(" ")
        status, _, body = answer.partition("\n")
        line = text.count("\n", 0, block.start()) + 1
        wanted = json.loads(body) if body else None
        found.append(Example(line, method, path, token, rest, int(status), wanted))
    return found


def fits(found: Any, wanted: Any) -> bool:
    """Return whether an answer is the documented one, except for parts written as ``<…>``."""
    if isinstance(wanted, str) and re.fullmatch("<[a-z ]+>", wanted):
        return found is not None
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(
            fits(found[key], wanted[key]) for key in wanted
        )
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(fits, found, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


def asked(example: Example, url: str) -> tuple[int, Any]:
    """Send an example's request; return the status and the content of the body."""
    headers = {"X-Auth-Token": example.token, "Host": HOST, "Content-Type": "application/json"}
    body = example.body.encode() or None
    answer = requests.request(
        example.method, url + example.url, data=body, headers=headers, timeout=LIMIT
    )
    return answer.status_code, answer.json() if answer.content else None


def is_final(example: Example, answer: tuple[int, Any]) -> bool:
    """Tell whether an answer cannot change any more, or is as documented."""
    return example.method != "GET" or fits(answer[1], example.answer)


def test_every_example_is_answered_as_documented(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    disk = noise(510) + b"\x55\xaa" + noise(1024 * 1024 - 512)
    (tmp_path / "images" / "debian.raw").write_bytes(disk)
    with process(tmp_path, MEMORY, installed(tmp_path), "cache_gib = 0") as daemon:
        for example in read(DOCUMENT.read_text()):
            # As clients do, wait for work in progress.
            status, found = block_until(
                partial(asked, example, daemon.url), partial(is_final, example)
            )
            assert status == example.status, (example, found)
            assert fits(found, example.answer), (example, found)


def test_every_call_has_an_example() -> None:
    shown = {(each.method, each.url) for each in read(DOCUMENT.read_text())}
    for operation in NOVA.operations:
        rule = NOVA.rule(operation, NOVA.versions_of(operation)[0], operation.path)
        pattern = re.sub("<[a-z_]+>", "[^/?]+", rule.replace("<tenant>", TENANT))
        assert any(
            method == operation.method and re.fullmatch(f"{pattern}([?].*)?", url)
            for method, url in shown
        ), (operation.method, rule)


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({"id": 1, "at": "x"}, {"id": 1, "at": "<time>"}, True),
        ({"id": 1, "at": None}, {"id": 1, "at": "<time>"}, False),
        ({"id": 1}, {"id": 1, "at": "<time>"}, False),
        ({"id": True}, {"id": 1}, False),
        ([1, 2], [1], False),
        ([{"id": 2}], [{"id": 1}], False),
    ],
)
def test_answers_are_really_compared(found: Any, wanted: Any, expected: bool) -> None:
    assert fits(found, wanted) is expected
