"""What tells one image from another, and how long a server wants to be left alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.web.http_headers import Headers

from bootvol_plugins.http.checksums import find_digest
from bootvol_plugins.http.ranges import retry_after, size_of_rest, validator_of


class Response:
    """The head of an answer."""

    def __init__(self, code: int = 200, **headers: str) -> None:
        self.code = code
        self.headers = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})


def response(code: int = 200, **headers: str) -> Any:
    """Return the head of an answer."""
    return Response(code, **headers)


OLD = "Mon, 02 Nov 2026 10:00:00 GMT"
NOW = "Mon, 02 Nov 2026 10:05:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"etag": '"abc"'}, '"abc"'),
        ({"etag": 'W/"abc"'}, None),
        ({"etag": "abc"}, None),
        ({"etag": '"a\0b"'}, None),
        ({"etag": '"\xe9"'}, None),
        ({"etag": '"' + "a" * 1000 + '"'}, None),
        ({"etag": 'W/"abc"', "last_modified": OLD, "date": NOW}, OLD),
        ({"last_modified": OLD}, None),
        ({"last_modified": OLD, "date": OLD}, None),
        ({"last_modified": "yesterday", "date": NOW}, None),
        ({"last_modified": OLD, "date": "now"}, None),
    ],
)
def test_validators(headers: dict[str, str], expected: str | None) -> None:
    assert validator_of(response(200, **headers)) == expected


@pytest.mark.parametrize(
    ("code", "content_range", "etag", "expected"),
    [
        (206, "bytes 10-99/100", '"a"', 100),
        (206, "bytes 10-99/100", '"b"', None),
        (206, "bytes 9-99/100", '"a"', None),
        (206, "bytes 10-98/100", '"a"', None),
        (206, "bytes 10-99/*", '"a"', None),
        (206, "", '"a"', None),
        (200, "bytes 10-99/100", '"a"', None),
    ],
)
def test_only_the_very_rest_will_do(
    code: int, content_range: str, etag: str, expected: int | None
) -> None:
    answer = response(code, content_range=content_range, etag=etag)
    assert size_of_rest(answer, 10, '"a"') == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5),
        ("99999999999", 300),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", 0),
        (OLD, 0),
        (NOW, 100),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    now = datetime(2026, 11, 2, 10, 3, 20, tzinfo=UTC).timestamp()
    assert retry_after(response(503, retry_after=value), now) == seconds


def test_lists_of_digests() -> None:
    digest = "ab" * 32
    text = f"# made today\n{'0' * 64}  disk.raw.old\n{digest.upper()} *./disk.raw\n"
    found = find_digest(text, "sha256", "disk.raw")
    assert found is not None
    assert found.value == digest
    assert find_digest(text, "sha256", "raw") is None
