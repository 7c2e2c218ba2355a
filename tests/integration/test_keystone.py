"""Tokens of a real Keystone: their callers, and their time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from bootvol.errors import IdentityUnavailable, TokenWithoutProject, Unauthorized
from bootvol.model import Caller
from bootvol_plugins.keystone.identity import KeystoneIdentity
from tests.daemons import pause
from tests.openstack.identity import PASSWORD, Keystone
from tests.openstack.people import Later, People

VALIDATED = "GET /v3/auth/tokens 200"
LOGGED_IN = "POST /v3/auth/tokens 201"


@pytest.fixture(scope="module")
def people(keystone: Keystone) -> People:
    """The users of these tests."""
    return People.of(keystone)


@pytest.fixture
def clock() -> Later:
    """The plugin's clock."""
    return Later()


@pytest_twisted.async_yield_fixture
async def identity(people: People, clock: Later) -> AsyncIterator[KeystoneIdentity]:
    """The plugin with its defaults."""
    made = people.identity(clock)
    yield made
    await made.close()


def ann(people: People) -> Caller:
    """Return the caller of ann's tokens for demo. Keystone adds the roles implied by admin."""
    implied = {"admin", "manager", "member", "reader"}
    return Caller(people.users["ann"], people.projects["demo"], frozenset(implied))


async def refused(asked: Awaitable[Caller]) -> Unauthorized:
    """Return the reason of a refused token."""
    with pytest.raises(Unauthorized) as caught:
        await asked
    return caught.value


@ensureDeferred
async def test_a_token_is_its_users_in_its_project(
    people: People, identity: KeystoneIdentity
) -> None:
    token = people.token("ann")
    for _ in range(2):
        caller = await identity.authenticate(token)
        assert caller == ann(people)
        assert caller.token == token, "Glance is asked with it"
    other = await identity.authenticate(people.token("ann", "other"))
    assert (other.user, other.tenant) == (people.users["ann"], people.projects["other"])
    assert other.roles == {"member", "reader"}


@ensureDeferred
async def test_a_token_without_a_project_says_so(
    people: People, identity: KeystoneIdentity
) -> None:
    unscoped = people.token("ann", None)
    of_the_system = people.keystone.token("admin", None, system=True)
    for token in (unscoped, unscoped, of_the_system):
        error = await refused(identity.authenticate(token))
        assert isinstance(error, TokenWithoutProject)
        assert error.message == "This token is not for a project; log in for a project."


@ensureDeferred
async def test_keystone_is_asked_once_for_a_while(
    people: People, identity: KeystoneIdentity, clock: Later
) -> None:
    token = people.token("ann")
    before = len(people.keystone.requests())
    asked = [Deferred.fromCoroutine(identity.authenticate(token)) for _ in range(10)]
    assert await gatherResults(asked) == [ann(people)] * 10
    clock.advance(59)
    await identity.authenticate(token)
    assert people.keystone.requests()[before:] == [LOGGED_IN, VALIDATED]
    clock.advance(2)
    await identity.authenticate(token)
    assert people.keystone.requests()[before:] == [LOGGED_IN, VALIDATED, VALIDATED]


@ensureDeferred
async def test_a_wrong_token_is_asked_about_again_soon(
    people: People, identity: KeystoneIdentity, clock: Later
) -> None:
    before = len(people.keystone.requests())
    for _ in range(3):
        await refused(identity.authenticate("nobody's"))
    clock.advance(6)
    await refused(identity.authenticate("nobody's"))
    unknown = "GET /v3/auth/tokens 404"
    assert people.keystone.requests()[before:] == [LOGGED_IN, unknown, unknown]


@ensureDeferred
async def test_a_revoked_token_ends_within_the_stated_time(
    people: People, identity: KeystoneIdentity, clock: Later
) -> None:
    """Keystone is asked about a token again after a minute.

    Break: `plugins/bootvol_plugins/keystone/identity.py`: `min(left, self._lifetime)` -> `left`.
    """
    token = people.token("ann")
    await identity.authenticate(token)
    people.keystone.revoke(token)
    clock.advance(60)
    await refused(identity.authenticate(token))


@pytest.mark.parametrize("what", ["user", "project"])
@ensureDeferred
async def test_who_is_disabled_goes_on_no_longer(
    keystone: Keystone, clock: Later, what: str
) -> None:
    """A token of a disabled user or project ends within a minute.

    Break: `plugins/bootvol_plugins/keystone/identity.py`: `min(left, self._lifetime)` -> `left`.
    """
    people = People.of(keystone)
    identity = people.identity(clock)
    token = people.token("bob")
    try:
        await identity.authenticate(token)
        number = people.users["bob"] if what == "user" else people.projects["demo"]
        keystone.call("PATCH", f"/{what}s/{number}", {what: {"enabled": False}})
        clock.advance(60)
        await refused(identity.authenticate(token))
    finally:
        await identity.close()


@ensureDeferred
async def test_a_token_with_rules_of_its_own_is_not_taken(
    people: People, identity: KeystoneIdentity
) -> None:
    """bootvol does not enforce such rules, and accepting the token would ignore them."""
    rules = [{"service": "volume", "method": "GET", "path": "/v1.1/*/os-volumes"}]
    credential = people.keystone.application_credential(
        people.users["bob"], people.token("bob"), access_rules=rules
    )
    await refused(identity.authenticate(people.keystone.log_in_by_credential(credential)))


@ensureDeferred
async def test_a_token_is_not_kept_beyond_its_end(people: People) -> None:
    """An application credential ends together with its tokens."""
    ends = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%S")
    credential = people.keystone.application_credential(
        people.users["bob"], people.token("bob"), expires_at=ends
    )
    token = people.keystone.log_in_by_credential(credential)
    identity = people.identity(cache_seconds=3600.0)
    try:
        await identity.authenticate(token)
        while datetime.now(UTC) < datetime.fromisoformat(f"{ends}+00:00"):
            await pause(0.1)
        await refused(identity.authenticate(token))
    finally:
        await identity.close()


@ensureDeferred
async def test_bootvols_own_token_is_renewed_in_time(
    people: People, identity: KeystoneIdentity, clock: Later
) -> None:
    """Keystone's tokens are valid for an hour."""
    token = people.token("ann")
    before = len(people.keystone.requests())
    await identity.authenticate(token)
    clock.advance(3000)
    await identity.authenticate(token)
    assert people.keystone.requests()[before:] == [LOGGED_IN, VALIDATED, VALIDATED]
    clock.advance(300)
    await identity.authenticate(token)
    assert people.keystone.requests()[before:][3:] == [LOGGED_IN, VALIDATED]


@ensureDeferred
async def test_bootvols_own_token_is_renewed_when_it_was_revoked(keystone: Keystone) -> None:
    people = People.of(keystone)
    identity = people.identity(cache_seconds=0.0)
    token = people.token("ann")
    try:
        await identity.authenticate(token)
        # This revokes all of the user's tokens, including later tokens of the same second.
        path, same = f"/users/{people.users['bootvol']}", {"user": {"password": PASSWORD}}
        keystone.call("PATCH", path, same)
        await pause(1.1)
        before = len(keystone.requests())
        assert await identity.authenticate(token) == ann(people)
        refusal = "GET /v3/auth/tokens 401"
        assert keystone.requests()[before:] == [refusal, LOGGED_IN, VALIDATED]
    finally:
        await identity.close()


@ensureDeferred
async def test_an_application_credential_of_bootvols_own(people: People) -> None:
    number, secret = people.keystone.application_credential(
        people.users["bootvol"], people.token("bootvol", "service")
    )
    identity = people.identity(
        username=None,
        password=None,
        application_credential_id=number,
        application_credential_secret=secret,
    )
    try:
        assert await identity.authenticate(people.token("ann")) == ann(people)
    finally:
        await identity.close()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"password": "wrong"}, id="password"),
        pytest.param({"project": "demo"}, id="project"),
        pytest.param({"url": "http://127.0.0.1:1/"}, id="address"),
    ],
)
@ensureDeferred
async def test_wrong_settings_are_no_fault_of_the_callers(
    people: People, wrong: dict[str, str]
) -> None:
    identity = people.identity(**wrong)
    try:
        for token in (people.token("ann"), "nobody's"):
            with pytest.raises(IdentityUnavailable) as caught:
                await identity.authenticate(token)
            assert caught.value.retry_after == 5
    finally:
        await identity.close()


@ensureDeferred
async def test_a_user_without_the_right_to_ask(people: People) -> None:
    """bob may ask about his own token, of course."""
    identity = people.identity(username=f"bob{people.ending}", project=f"demo{people.ending}")
    try:
        with pytest.raises(IdentityUnavailable):
            await identity.authenticate(people.token("ann"))
    finally:
        await identity.close()


@pytest.mark.parametrize("trusted", [True, False])
@ensureDeferred
async def test_a_private_authority(people: People, tmp_path: Path, trusted: bool) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (authority if trusted else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    token = people.token("ann")
    with people.keystone.over_tls(tmp_path / "cert.pem", tmp_path / "key.pem") as url:
        identity = people.identity(url=url, ca=str(tmp_path / "ca.pem"))
        try:
            if trusted:
                assert await identity.authenticate(token) == ann(people)
            else:
                with pytest.raises(IdentityUnavailable):
                    await identity.authenticate(token)
        finally:
            await identity.close()
