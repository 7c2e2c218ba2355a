"""The identity of an image by its headers, and the wait stated by a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH

from bootvol.model import Image
from bootvol_plugins.http.ranges import (
    Part,
    comparable,
    fitting,
    is_at_end,
    is_whole,
    part_of,
    retry_after,
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
        ({"etag": '""'}, None),
        ({"etag": '"a\0b"'}, None),
        ({"etag": '"\xe9"'}, None),
        ({"etag": '"' + "a" * 1000 + '"'}, None),
        ({"etag": 'W/"abc"', "last_modified": OLD, "date": NOW}, OLD),
        ({"last_modified": OLD}, None),
        ({"last_modified": "Thu, 01 Jan 1970 00:00:01 GMT", "date": NOW}, None),
        ({"last_modified": "Tue, 01 Jan 1980 00:00:00 GMT", "date": NOW}, None),
        ({"last_modified": OLD, "date": OLD}, None),
        ({"last_modified": OLD + " x" * 1000, "date": NOW}, None),
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
    ("validator", "other", "expected"),
    [
        ('"a"', '"b"', '"b"'),
        (OLD, NOW, NOW),
        (OLD, '"b"', None),
        ('"a"', NOW, None),
        (None, NOW, NOW),
        ('"a"', None, None),
    ],
)
def test_validators_of_two_kinds_cannot_be_compared(
    validator: str | None, other: str | None, expected: str | None
) -> None:
    assert comparable(other, validator) == expected


@pytest.mark.parametrize(
    ("code", "length", "content_range", "ranged", "whole"),
    [
        (200, 100, None, True, True),
        (203, None, None, True, True),
        (204, 0, None, False, False),
        (206, 100, "bytes 0-99/100", True, True),
        (206, None, "bytes 0-99/*", True, True),
        (206, None, "bytes 0-98/*", True, False),
        (206, 99, "bytes 1-99/100", False, False),
        # Nobody asked for a part.
        (206, None, None, False, True),
        (206, None, None, True, False),
        (206, 100, None, True, True),
        (206, 100, "bytes 0-100/100", True, True),
        (206, 99, "bytes 0-99/99", False, False),
        (404, 100, None, False, False),
    ],
)
def test_whole_files(
    code: int, length: int | None, content_range: str | None, ranged: bool, whole: bool
) -> None:
    headers = {} if content_range is None else {"content_range": content_range}
    said: Any = Response(code, UNKNOWN_LENGTH if length is None else length, **headers)
    assert is_whole(said, 100, ranged=ranged) is whole


@pytest.mark.parametrize(
    ("content_range", "size", "expected"),
    [
        ("bytes 10-99/100", 100, Part(10, 100, 100)),
        ("bytes 9-98/100", 100, Part(9, 99, 100)),
        ("bytes 11-99/100", 100, None),
        ("bytes 10-99/*", 100, Part(10, 100, 100)),
        ("bytes 10-99/*", None, None),
    ],
)
def test_parts_of_use(content_range: str, size: int | None, expected: Part | None) -> None:
    image = Image("i", "s", "n", size_bytes=size)
    assert fitting(response(206, content_range=content_range), image, 10, ranged=True) == expected


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
