"""The identity of an image by its headers, and the wait stated by a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH

from bootvol_plugins.http.ranges import (
    Part,
    is_at_end,
    part_of,
    retry_after,
    size_from,
    validator_of,
)


class Response:
    """The head of an answer."""

    def __init__(self, code: int = 200, length: Any = UNKNOWN_LENGTH, **headers: str) -> None:
        self.code = code
        self.length = length
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
    ("code", "content_range", "expected"),
    [
        (206, "bytes 10-99/100", Part(10, 100, 100)),
        (206, "Bytes=10 - 99/100", Part(10, 100, 100)),
        (206, "bytes 10-98/100", Part(10, 99, 100)),
        (206, "bytes 10-99/*", Part(10, 100, None)),
        (206, "bytes 10-9/100", None),
        (206, "bytes 10-100/100", None),
        (206, "bytes */100", None),
        (206, "", None),
        (200, "bytes 10-99/100", Part(10, 100, 100)),
        (416, "bytes 10-99/100", None),
    ],
)
def test_parts(code: int, content_range: str, expected: Part | None) -> None:
    assert part_of(response(code, content_range=content_range)) == expected


@pytest.mark.parametrize(("length", "fits"), [(90, True), (89, False), (100, False)])
def test_a_part_of_another_length_than_its_answer_is_none(length: int, fits: bool) -> None:
    said = Response(206, length, content_range="bytes 10-99/100")
    assert (part_of(said) is not None) is fits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_range", "expected"),
    [("bytes 10-99/100", 100), ("bytes 9-99/100", None), ("bytes 10-98/100", None)],
)
def test_only_the_very_rest_will_do(content_range: str, expected: int | None) -> None:
    assert size_from(response(206, content_range=content_range), 10) == expected


@pytest.mark.parametrize(
    ("code", "content_range", "expected"),
    [(416, "bytes */10", True), (416, "bytes */11", False), (416, "", False), (206, "", False)],
)
def test_the_very_end(code: int, content_range: str, expected: bool) -> None:
    assert is_at_end(response(code, content_range=content_range), 10) is expected


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
