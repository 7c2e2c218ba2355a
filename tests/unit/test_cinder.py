"""Microversions, and the lists of the Block Storage API."""

from __future__ import annotations

from ast import literal_eval
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from twisted.web.test.requesthelper import DummyRequest

from bootvol.api.cinder import matching
from bootvol.api.cinder.lists import Listing, Selected
from bootvol.api.cinder.matching import fits_times, has_items
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
        ("volumev3 3.12", Microversion(3, 12)),
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
    filters={"name": lambda each, value: each[2] == value, "id": lambda each, value: False},
    sorted_by={
        "id": lambda each: each[0],
        "created_at": lambda each: each[1],
        "name": lambda each: each[2],
    },
    open=("name",),
    early={"loose": (2, lambda each, value: True)},
    texts={"name": lambda each: each[2]},
    sorted_since={"name": 30},
    counts=True,
)


@attrs.frozen
class Asking:
    """The context of a request."""

    request: Any
    operates: bool
    minor: int

    def has(self, minor: int) -> bool:
        return self.minor >= minor


def ask(query: dict[str, str], operates: bool = False, minor: int = 71) -> Selected[Item]:
    """Return the page that a request with a minor version asks for."""
    request: Any = DummyRequest([b"volumes"])
    request.args = {name.encode(): [value.encode()] for name, value in query.items()}
    request.path = b"/volume/v3/volumes"
    return LISTING.select(Asking(request, operates, minor), ITEMS)


def select(query: dict[str, str]) -> tuple[str, bool]:
    """Return the ids of a page, and whether a link to a next page follows."""
    found = ask(query)
    return ids(found), bool(found.links)


def ids(found: Selected[Item]) -> str:
    return "".join(each[0] for each in found.page)


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


def test_members_filter_by_open_names_only() -> None:
    """From 3.31 on, other names are refused, and before, they are ignored."""
    for name in ("id", "nosuch", "name~", "\xff"):
        with pytest.raises(InvalidRequest) as refused:
            ask({name: "x"})
        assert refused.value.message == f"Invalid filters {name} are found in query options."
        assert ids(ask({name: "x"}, minor=30)) == "cba"
        assert ids(ask({name: "zz"}, operates=True)) == ""
    assert ids(ask({"name": "x", "all_tenants": "1"})) == "a"
    loose = attrs.evolve(LISTING, refuses=False)
    request: Any = DummyRequest([b"volumes"])
    request.args = {b"id": [b"x"]}
    assert ids(loose.select(Asking(request, False, 71), ITEMS)) == "cba"


def test_operators_filter_by_parts_of_texts() -> None:
    assert ids(ask({"name~": "x"}, operates=True)) == "a"
    assert ids(ask({"name~": ""}, operates=True)) == "cba"
    assert ids(ask({"name~": "x"}, operates=True, minor=33)) == ""


def test_early_requests_have_looser_filters_and_fewer_orders() -> None:
    assert ids(ask({"loose": "x"}, operates=True, minor=1)) == "cba"
    assert ids(ask({"loose": "x"}, operates=True, minor=2)) == ""
    assert ids(ask({"sort": "name:asc"}, minor=30)) == "bac"
    with pytest.raises(InvalidRequest):
        ask({"sort": "name:asc"}, minor=29)


def test_a_list_counts_what_fits() -> None:
    assert ask({"limit": "1"}).count is None
    assert ask({"limit": "1", "with_count": "True"}).count == 3
    assert ask({"with_count": "1", "name": "x"}).count == 1
    with pytest.raises(InvalidRequest, match="Invalid filters with_count are"):
        ask({"with_count": "1"}, minor=44)
    with pytest.raises(InvalidRequest, match="Value 'zz' for 'with_count' is not"):
        ask({"with_count": "zz"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gt:2020-01-01T00:00:00", True),
        ("lt:2020-01-01T00:00:00", False),
        ("gte:2026-11-28T12:36:23,lt:2099-01-01", True),
        ("gt:2026-11-28T12:36:23", False),
        ("eq:2026-11-28T13:36:23+01:00", True),
        ("neq:2026-11-28T12:36:23Z", False),
        ("lte:2026-11-28T12:36:22.999999", False),
    ],
)
def test_times_are_compared(value: str, expected: bool) -> None:
    when = datetime(2026, 11, 28, 12, 36, 23, tzinfo=UTC)
    assert fits_times(when, value) is expected
    assert not fits_times(None, value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("zz:1", "Invalid zz operator"),
        ("gt:zz", "Invalid zz value"),
        ("gt", "Invalid  value"),
        ("gt:0001-01-01T00:00:00+23:00", "Invalid 0001-01-01T00:00:00+23:00 value"),
    ],
)
def test_wrong_comparisons_are_refused(value: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fits_times(None, value)
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

    Break: `src/bootvol/api/cinder/matching.py`: `@lru_cache(64)` -> `@lru_cache(0)`.
    """
    parsed: list[str] = []

    def parse(value: str) -> object:
        parsed.append(value)
        return literal_eval(value)

    monkeypatch.setattr(matching, "literal_eval", parse)
    value = "{'a filter of this test': '1'}"
    assert not any(has_items({"k": str(n)}, value) for n in range(1000))
    assert parsed == [value]
