"""Microversions, and the lists of the Block Storage API."""

from __future__ import annotations

from ast import literal_eval
from typing import Any

import pytest
from twisted.web.test.requesthelper import DummyRequest

from bootvol.api.cinder import lists
from bootvol.api.cinder.lists import Listing, has_items
from bootvol.api.cinder.microversions import HIGHEST, LOWEST, Microversion, asked
from bootvol.errors import (
    ApiVersionUnsupported,
    BootvolError,
    InvalidRequest,
    NotFound,
    VolumeNotFound,
)

RANGE = f"is not supported by the API. Minimum is 3.0 and maximum is {HIGHEST}."
FORM = "is of invalid format. Must be of format MajorNum.MinorNum."


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, LOWEST),
        ("volume 3.0", LOWEST),
        ("volume latest", HIGHEST),
        (f"volume {HIGHEST}", HIGHEST),
        ("compute 2.90, volume 3.12", Microversion(3, 12)),
        ("Volume 3.12", Microversion(3, 12)),
    ],
)
def test_a_header_asks_for_a_version(header: str | None, expected: Microversion) -> None:
    assert asked(header) == expected


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ("volume 3.999", ApiVersionUnsupported, f"Version 3.999 {RANGE}"),
        ("volume 2.0", ApiVersionUnsupported, f"Version 2.0 {RANGE}"),
        ("volume abc", InvalidRequest, f"API Version String abc {FORM}"),
        ("volume 3.07", InvalidRequest, f"API Version String 3.07 {FORM}"),
        (
            "compute 2.90",
            InvalidRequest,
            "The server could not comply with the request since it is either malformed or otherwise"
            " incorrect.",
        ),
    ],
)
def test_a_wrong_header_is_refused_in_cinders_words(
    header: str, error: type[BootvolError], message: str
) -> None:
    with pytest.raises(error) as refused:
        asked(header)
    assert refused.value.message == message


def test_a_long_header_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked("volume " + "9" * 5000)
    assert len(refused.value.message) < 200


#: Items of a list: an id, a time and a name.
Item = tuple[str, int, str | None]
ITEMS: list[Item] = [("a", 1, "x"), ("b", 2, None), ("c", 2, "y")]
LISTING: Listing[Item] = Listing(
    key=lambda each: each[0],
    missing=VolumeNotFound,
    filters={"name": lambda each, value: each[2] == value},
    sorted_by={
        "id": lambda each: each[0],
        "created_at": lambda each: each[1],
        "name": lambda each: each[2],
    },
)


def select(query: dict[str, str]) -> tuple[str, bool]:
    """Return the ids of a page, and whether a link to a next page follows."""
    request: Any = DummyRequest([b"volumes"])
    request.args = {name.encode(): [value.encode()] for name, value in query.items()}
    request.path = b"/volume/v3/volumes"
    page, links = LISTING.select(request, ITEMS)
    return "".join(each[0] for each in page), bool(links)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ("cba", False)),
        ({"sort": "created_at:asc,id:desc"}, ("acb", False)),
        ({"sort_key": "name", "sort_dir": "asc"}, ("bac", False)),
        ({"sort": "name"}, ("cab", False)),
        ({"limit": "2"}, ("cb", True)),
        ({"limit": "3"}, ("cba", True)),
        ({"limit": "0"}, ("", False)),
        ({"limit": "9999"}, ("cba", False)),
        ({"marker": "b"}, ("a", False)),
        ({"offset": "1", "limit": "1"}, ("b", True)),
        ({"offset": "9"}, ("", False)),
        ({"name": "x"}, ("a", False)),
    ],
)
def test_a_list_is_cut_and_ordered_as_in_cinder(
    query: dict[str, str], expected: tuple[str, bool]
) -> None:
    assert select(query) == expected


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({"limit": "-1"}, InvalidRequest, "limit param must be positive"),
        ({"limit": "x"}, InvalidRequest, "limit param must be an integer"),
        ({"offset": "-1"}, InvalidRequest, "offset must be >= 0"),
        ({"offset": "x"}, InvalidRequest, "offset must be an integer"),
        ({"marker": "zz"}, NotFound, "Volume zz could not be found."),
        ({"sort": "zz"}, InvalidRequest, "Invalid input received: Invalid sort key"),
        (
            {"sort": "name:up"},
            InvalidRequest,
            "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_in_cinders_words(
    query: dict[str, str], error: type[BootvolError], message: str
) -> None:
    with pytest.raises(error) as refused:
        select(query)
    assert refused.value.message == message


@pytest.mark.parametrize("value", ['{"k": "1"}', "{'k': '1'}", "{'k': '1', 'q': 'x'}"])
def test_metadata_filters_take_json_and_python(value: str) -> None:
    assert has_items({"k": "1", "q": "x", "r": ""}, value)
    assert not has_items({"k": "2", "q": "x"}, value)
    assert has_items({}, "{}")


REFUSED = [
    *("k", "[1]", "{" * 5000, "{'k': " * 100, "'" * 5000, "{(1,): 2}"),
    *("[" * 5000, '{"k":' * 3000, "{'k': 0x" + "f" * 3900 + "}"),
]


@pytest.mark.parametrize("value", REFUSED)
def test_other_metadata_filters_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="metadata must be an object"):
        has_items({}, value)


def test_a_metadata_filter_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list with a long filter does not stop the reactor.

    Break: `src/bootvol/api/cinder/lists.py`: `@lru_cache(64)` -> `@lru_cache(0)`.
    """
    parsed: list[str] = []

    def parse(value: str) -> object:
        parsed.append(value)
        return literal_eval(value)

    monkeypatch.setattr(lists, "literal_eval", parse)
    value = "{'a filter of this test': '1'}"
    assert not any(has_items({"k": str(n)}, value) for n in range(1000))
    assert parsed == [value]
