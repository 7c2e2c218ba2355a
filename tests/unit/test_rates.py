"""Rate limits of tenants, by the test's clock."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from bootvol.api.rates import counted
from bootvol.errors import RateLimited
from bootvol.service import rates
from bootvol.service.rates import UNITS, RateLimit, RateLimits

START = 1_700_000_000.0


def asked(target: str) -> tuple[str, str]:
    """Return the query and the path of a target."""
    path, _, query = target.partition("?")
    return query, path


def a_limit(
    value: int, unit: str, verb: str = "GET", regex: str = ".*", uri: str = "*"
) -> RateLimit:
    """Return a limit."""
    return RateLimit(verb, uri, re.compile(regex), value, unit)


def limits(*given: RateLimit) -> tuple[RateLimits, Clock]:
    """Return the limits, and their clock."""
    clock = Clock()
    clock.advance(START)
    return RateLimits(given, clock), clock


def let_through(limited: RateLimits, calls: int, tenant: str = "t", target: str = "/x") -> int:
    """Make a number of calls; return the number of accepted calls."""
    passed = 0
    for _ in range(calls):
        try:
            limited.count(tenant, "GET", *asked(target))
            passed += 1
        except RateLimited:
            pass
    return passed


@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize("value", [1, 3, 7, 1000])
def test_so_many_at_once_and_then_evenly(value: int, unit: str) -> None:
    limited, clock = limits(a_limit(value, unit))
    assert let_through(limited, value + 5) == value
    for _ in range(3):
        clock.advance(UNITS[unit] / value + 1e-6)
        assert let_through(limited, 5) == 1
    clock.advance(UNITS[unit])
    assert let_through(limited, value + 5) == value


@given(
    value=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 90), st.integers(0, 30)), max_size=20),
)
def test_never_more_than_the_unit_has_room_for(value: int, steps: list[tuple[float, int]]) -> None:
    limited, clock = limits(a_limit(value, "MINUTE"))
    passed, passing = 0.0, 0
    for seconds, calls in steps:
        clock.advance(seconds)
        passed += seconds
        passing += let_through(limited, calls)
        assert passing <= value + passed * value / 60 + 1e-3
        (rate,) = limited.of("t")
        assert rate.remaining == let_through(limited, 100)
        passing += rate.remaining


def test_what_is_told() -> None:
    limited, clock = limits(a_limit(2, "MINUTE", uri="*/servers"))
    (rate,) = limited.of("t")
    assert (rate.remaining, rate.wait) == (2, 0)
    assert let_through(limited, 2) == 2
    clock.advance(0.5)
    with pytest.raises(RateLimited) as refused:
        limited.count("t", "GET", *asked("/servers"))
    assert refused.value.message == "This request was rate-limited."
    assert refused.value.details == "Only 2 GET request(s) can be made to */servers every minute."
    assert refused.value.retry_after == 30, "29.5, in whole seconds"
    (rate,) = limited.of("t")
    assert (rate.remaining, rate.wait) == (0, 29.5)


def test_a_limit_is_for_some_calls() -> None:
    limited, _ = limits(
        a_limit(1, "DAY", regex="^/os-volumes"), a_limit(1, "DAY", regex=".*changes-since.*")
    )
    limited.count("t", "POST", *asked("/os-volumes"))
    limited.count("t", "GET", *asked("/os-snapshots"))
    limited.count("t", "GET", *asked("/os-volumes"))
    limited.count("t", "GET", *asked("/os-snapshots?changes-since=1"))
    for target in ("/os-volumes", "/os-volumes/1", "/images?x=1&changes-since=2"):
        with pytest.raises(RateLimited):
            limited.count("t", "GET", *asked(target))


def test_the_longest_wait_is_told_and_what_is_refused_is_not_counted() -> None:
    limited, clock = limits(a_limit(1, "MINUTE", regex="^/a"), a_limit(3, "HOUR"))
    limited.count("t", "GET", *asked("/a"))
    with pytest.raises(RateLimited) as refused:
        limited.count("t", "GET", *asked("/a"))
    assert refused.value.retry_after == 60
    assert [rate.remaining for rate in limited.of("t")] == [0, 2]
    assert let_through(limited, 5, target="/b") == 2
    with pytest.raises(RateLimited) as refused:
        limited.count("t", "GET", *asked("/a"))
    assert refused.value.retry_after == 1200
    clock.advance(1200)
    limited.count("t", "GET", *asked("/a"))


def test_tenants_do_not_limit_each_other() -> None:
    limited, _ = limits(a_limit(2, "DAY"))
    assert let_through(limited, 5, "a") == 2
    assert let_through(limited, 5, "b") == 2


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    limited, clock = limits(a_limit(1, "MINUTE"))
    limited.count("t", "GET", *asked("/"))
    clock.rightNow -= 3600
    assert let_through(limited, 1) == 0
    clock.advance(60)
    assert let_through(limited, 1) == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_TENANTS", 3)
    limited, _ = limits(a_limit(1, "DAY"))
    for tenant in "abcacd":
        let_through(limited, 1, tenant)
    assert let_through(limited, 1, "a") == 0, "others have not called for longer"
    assert len(limited._tenants) == 3
    assert let_through(limited, 1, "b") == 1


def test_without_limits_nothing_is_remembered_of_calls() -> None:
    limited, _ = limits()
    assert let_through(limited, 1000) == 1000
    assert limited.of("t") == []


@pytest.mark.parametrize(
    "regex", ["^/os-volumes/[0-9]+$", r"^/volumes/\d+$", "^/os-volumes/[0-9a-f]{8}(-[0-9a-f]+){4}$"]
)
@pytest.mark.parametrize("text", ["7", str(UUID(int=7)), UUID(int=7).hex, "none"])
@pytest.mark.parametrize("name", ["volume_id", "number"])
def test_a_limit_of_numbers_counts_uuids_too(regex: str, text: str, name: str) -> None:
    """A limit whose pattern has one form of an id counts calls with the other form.

    Break: `src/bootvol/api/rates.py`: `(text, *_EITHER) if name in _OF_TWO_FORMS else (text,)`
    -> `(text,)`.
    """
    limits = RateLimits([RateLimit("GET", "*", re.compile(regex), 1, "DAY")], Clock())
    names = counted(f"volumes/<{name}>", {name: text})
    limits.count("t", "GET", "", *names)
    with pytest.raises(RateLimited):
        limits.count("t", "GET", "", *names)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("volumes/detail", {"/volumes/detail", "/os-volumes/detail"}),
        ("os-volumes", {"/volumes", "/os-volumes"}),
        ("os-snapshots", {"/snapshots", "/os-snapshots"}),
        ("os-volume-types", {"/types", "/os-volume-types"}),
        ("os-volumes_boot", {"/os-volumes_boot", "/servers"}),
        ("servers", {"/os-volumes_boot", "/servers"}),
        ("servers/detail", {"/servers/detail"}),
    ],
)
def test_a_limit_counts_equivalent_operations(path: str, counts: set[str]) -> None:
    """A limit of one of two equivalent operations counts the other, too.

    Break: `src/bootvol/api/rates.py`: `in (pair, pair[::-1])` -> `in (pair,)`.
    Break: `src/bootvol/api/rates.py`: `if path in _ALONE else []` -> `if False else []`.
    """
    assert set(counted(path, {})) == counts


def test_paths_of_two_ids_count_in_all_forms() -> None:
    names = counted(
        "servers/<server_id>/os-volume_attachments/<volume_id>",
        {"server_id": "1", "volume_id": str(UUID(int=2))},
    )
    pattern = re.compile("/servers/[0-9a-f-]{36}/os-volume_attachments/[0-9]+$")
    assert any(map(pattern.match, names))
    assert all(name.startswith("/servers/") for name in names)
