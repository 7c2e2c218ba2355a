"""Queries on long lists: none takes much time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from klein import Klein
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from bootvol.api import filters
from bootvol.api.filters import filtered
from bootvol.api.http import Faults
from bootvol.api.root import MOST_PARAMETERS, ApiRoot, Mount


def asking(query: bytes) -> Request:
    """Return a request with a query."""
    request = Request(DummyChannel())
    request.args = {b"name": query.split(b",")}
    return request


def test_parameters_are_bounded() -> None:
    """A query with more parameters than any call has is refused.

    Break: `src/bootvol/api/root.py`: `if sum(map(len, (request.args or {}).values())) >
    MOST_PARAMETERS:` -> `if not request:`.
    """
    app = Klein()
    app.route("/x")(lambda _: b"found")
    root = ApiRoot(Mount((), app, Faults(lambda error, _: error.message, lambda _: {})))
    codes = []
    for count in (MOST_PARAMETERS, MOST_PARAMETERS + 1):
        request: Any = asking(b",".join([b"x"] * count))
        request.postpath = [b"x"]
        root.render(request)
        codes.append(request.code)
    assert codes == [200, 400]


def test_a_value_is_held_against_a_list_once() -> None:
    """A repeated value is compared with a list once.

    Break: `src/bootvol/api/filters.py`: `in dict.fromkeys((request.args or
    {}).get(name.encode("ascii"), ())):` -> `in (request.args or {}).get(name.encode("ascii"), ()):`
    """
    asked: list[str] = []

    def fits(each: str, text: str) -> bool:
        asked.append(each)
        return True

    found = [str(number) for number in range(50)]
    assert filtered(asking(b",".join([b"x"] * 90)), found, {"name": fits}) == found
    assert len(asked) == len(found)


@pytest.fixture
def normalized(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts normalized so far."""
    texts: list[str] = []
    plain = unicodedata.normalize

    def normalize(form: Any, text: str) -> str:
        texts.append(text)
        return plain(form, text)

    monkeypatch.setattr(unicodedata, "normalize", normalize)
    filters.composed.cache_clear()
    yield texts
    filters.composed.cache_clear()


def test_a_text_that_is_compared_with_many_is_composed_once(normalized: list[str]) -> None:
    """A text with many combining marks, slow to sort, is normalized once for a whole list.

    Break: `src/bootvol/api/filters.py`: `@lru_cache(64)` -> `@lru_cache(0)`.
    """
    marks = "a" + "\u0301\u0323" * 2000
    names = [f"image {number}" for number in range(500)]
    assert not any(filters.composed(name) == filters.composed(marks) for name in names)
    assert normalized.count(marks) == 1
