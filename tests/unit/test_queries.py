"""Queries on long lists: none takes much time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from bootvol.api import filters
from bootvol.api.filters import filtered
from bootvol.errors import InvalidRequest


def asking(query: bytes) -> Request:
    """Return a request with a query."""
    request = Request(DummyChannel())
    request.args = {b"name": query.split(b",")}
    return request


def test_a_value_is_held_against_a_list_once() -> None:
    """A repeated value is compared with a list once.

    Break: `src/bootvol/api/filters.py`: `values = dict.fromkeys((request.args or
    {}).get(name.encode("utf-8"), ()))` -> `values = (request.args or {})[name.encode("ascii")][:5]`
    """
    asked: list[str] = []

    def fits(each: str, text: str) -> bool:
        asked.append(each)
        return True

    found = [str(number) for number in range(50)]
    assert filtered(asking(b",".join([b"x"] * 90)), found, {"name": fits}) == found
    assert len(asked) == len(found)


def test_many_values_of_a_filter_are_refused() -> None:
    """One number in many spellings is not compared with a list again and again.

    Break: `src/bootvol/api/filters.py`: `if len(values) > _MOST_VALUES:` -> `if False:`.
    """
    spelled = [b"0" * number for number in range(1, 7)]
    assert filtered(asking(b",".join(spelled[:5])), ["x"], {"name": lambda _, text: True}) == ["x"]
    with pytest.raises(InvalidRequest, match="name has more than 5 values"):
        filtered(asking(b",".join(spelled)), ["x"], {"name": lambda _, text: True})


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
