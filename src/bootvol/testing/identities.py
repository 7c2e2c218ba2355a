"""The contract suites of identity services with and without logins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from bootvol.errors import LoginFailed, TooManyLogins, Unauthorized
from bootvol.interfaces import IIdentity, PluginContext
from bootvol.login import (
    AccessKey,
    Credentials,
    EarlierToken,
    IKnowingLogin,
    ILogin,
    Named,
    Password,
    Which,
)
from bootvol.model import Caller
from bootvol.testing.contract import Contract


@attrs.frozen
class Subject:
    """An identity service under test, with facts for the suite.

    :ivar valid: callers by valid token, of at least two tenants.
    """

    identity: IIdentity
    valid: Mapping[str, Caller]


class IdentityContract(Contract):
    """The tests for every identity service.  Subclasses provide the fixture ``subject``."""

    @ensureDeferred
    async def test_provides_the_interface(self, subject: Subject) -> None:
        verifyObject(IIdentity, subject.identity)

    @ensureDeferred
    async def test_knows_its_own(self, subject: Subject) -> None:
        for token, caller in subject.valid.items():
            assert await subject.identity.authenticate(token) == caller

    @ensureDeferred
    async def test_tells_tenants_apart(self, subject: Subject) -> None:
        callers = [await subject.identity.authenticate(token) for token in subject.valid]
        assert len({caller.tenant for caller in callers}) > 1

    @ensureDeferred
    async def test_knows_nobody_else(self, subject: Subject) -> None:
        token = next(iter(subject.valid))
        changed = [token[:-1], token + "x", token.swapcase(), f" {token}", f"{token}\0"]
        for wrong in ["", "x", "é", "\ud800", "x" * 100_000, "\r\n", *changed]:
            if wrong != token:  # A token without letters has only one case.
                with pytest.raises(Unauthorized):
                    await subject.identity.authenticate(wrong)


def make_identity_tests(
    make: Callable[[PluginContext, Path], Subject],
) -> type[IdentityContract]:
    """Return the contract suite of one identity service, for a test module to name.

    :param make: creates the subject from a context and an empty folder; called once per test.
    """

    class TestIdentity(IdentityContract):
        @pytest.fixture
        def subject(self, context: PluginContext, tmp_path: Path) -> Subject:
            return make(context, tmp_path)

    return TestIdentity


@attrs.frozen
class LoginSubject:
    """A login service under test, with facts for the suite.

    :ivar make: creates the service.  Another call creates the service with its stored state, as
        after a restart.
    :ivar user: a user who may log in with ``password``.  ``projects`` are the user's projects, at
        least two, each with the user's roles.  ``closed`` is another project.
    :ivar others: other credentials of the same user.
    """

    make: Callable[[], Any]
    user: Named
    password: str
    projects: Mapping[Named, frozenset[str]]
    closed: Named
    others: Sequence[Credentials] = ()

    @property
    def credentials(self) -> Sequence[Credentials]:
        """All credentials of the user."""
        by_id, by_name = Which(id=self.user.id), Which(name=self.user.name)
        return [Password(by_id, self.password), Password(by_name, self.password), *self.others]


class LoginContract(Contract):
    """The tests for every login service.  Subclasses provide the fixture ``subject``."""

    @ensureDeferred
    async def test_provides_the_interfaces(self, subject: LoginSubject) -> None:
        service = subject.make()
        verifyObject(IIdentity, service)
        verifyObject(ILogin, service)
        if IKnowingLogin.providedBy(service):
            verifyObject(IKnowingLogin, service)
            known = IKnowingLogin(service)
            for found in known.users(), known.projects():
                assert len({each.id for each in found}) == len(found) > 0

    @ensureDeferred
    async def test_logs_in_to_each_project(self, subject: LoginSubject) -> None:
        """A log-in gives a token of one project, with the roles in that project.

        Break: `plugins/bootvol_plugins/embedded/identity.py`: `user.roles.get(claims.project or "",
        frozenset())` -> `frozenset().union(*user.roles.values())`.
        """
        service = subject.make()
        for project, roles in subject.projects.items():
            for credentials in subject.credentials:
                for which in (Which(id=project.id), Which(name=project.name)):
                    session = await service.login(credentials, which, "192.0.2.1")
                    assert (session.user, session.project) == (subject.user, project)
                    assert session.roles == roles
                    assert set(session.projects) == set(subject.projects)
                    assert session.issued_at < session.expires_at
                    assert await service.session(session.token) == session
                    caller = await service.authenticate(session.token)
                    assert caller == Caller(subject.user.id, project.id, roles)
                    assert caller.token is None, "who logs in here shows it to nobody else"

    @ensureDeferred
    async def test_goes_on_from_a_token_without_a_project(self, subject: LoginSubject) -> None:
        service = subject.make()
        for credentials in subject.credentials:
            session = await service.login(credentials, None, "192.0.2.1")
            assert session.project is None
            assert session.roles == frozenset()
            assert set(session.projects) == set(subject.projects)
            with pytest.raises(Unauthorized):
                await service.authenticate(session.token)
            for project in subject.projects:
                again = await service.login(
                    EarlierToken(session.token), Which(id=project.id), "192.0.2.1"
                )
                assert again.project == project
                assert again.token != session.token
                # A chain of tokens does not extend a session.
                assert again.expires_at == session.expires_at

    @ensureDeferred
    async def test_says_the_same_of_all_that_is_wrong(self, subject: LoginSubject) -> None:
        service = subject.make()
        right, project = subject.credentials[0], Which(id=next(iter(subject.projects)).id)
        user = Which(id=subject.user.id)
        wrong: list[tuple[Credentials, Which | None]] = [
            (Password(user, subject.password + "x"), project),
            (Password(user, ""), project),
            (Password(Which(id="nobody"), subject.password), project),
            (Password(Which(), subject.password), project),
            (Password(Which(subject.user.id, "somebody else"), subject.password), project),
            (AccessKey("nobody's", "secret"), project),
            (EarlierToken("x"), project),
            (right, Which(id=subject.closed.id)),
            (right, Which(name=subject.closed.name)),
            (right, Which(id="no project")),
            (right, Which()),
        ]
        for number, (credentials, which) in enumerate(wrong):
            with pytest.raises(LoginFailed) as caught:
                await service.login(credentials, which, f"192.0.2.{number}")
            assert caught.value.message == LoginFailed.default_message

    @ensureDeferred
    async def test_takes_whatever_is_sent(self, subject: LoginSubject) -> None:
        service = subject.make()
        user = Which(id=subject.user.id)
        for hostile in ["", "\0", "\ud800", "é" * 100_000, "' OR 1=1", "../../x"]:
            attempts: list[tuple[Credentials, Which | None]] = [
                (Password(Which(id=hostile), "x"), None),
                (Password(user, hostile), None),
                (AccessKey(hostile, hostile), None),
                (EarlierToken(hostile), None),
                (subject.credentials[0], Which(id=hostile)),
            ]
            for number, (credentials, which) in enumerate(attempts):
                with pytest.raises(LoginFailed):
                    await service.login(credentials, which, f"{hostile}{number}")
            for call in (service.session, service.revoke, service.authenticate):
                with pytest.raises(Unauthorized):
                    await call(hostile)

    @ensureDeferred
    async def test_what_is_revoked_stays_so(self, subject: LoginSubject) -> None:
        service = subject.make()
        project = Which(id=next(iter(subject.projects)).id)
        ended, other = [
            (await service.login(subject.credentials[0], project, "192.0.2.1")).token
            for _ in range(2)
        ]
        by_it = (await service.login(EarlierToken(ended), project, "192.0.2.1")).token
        await service.revoke(ended)
        for each in (service, subject.make()):
            for call in (each.authenticate, each.session, each.revoke):
                for token in (ended, by_it):
                    with pytest.raises(Unauthorized):
                        await call(token)
            with pytest.raises(LoginFailed):
                await each.login(EarlierToken(ended), project, "192.0.2.1")
            await each.authenticate(other)

    @ensureDeferred
    async def test_slows_down_who_guesses(self, subject: LoginSubject) -> None:
        service = subject.make()
        user = Which(id=subject.user.id)
        with pytest.raises(TooManyLogins) as caught:
            await _guess(service, user)
        assert caught.value.retry_after > 0
        # The correct password does not help from the same address, but from another one it does.
        with pytest.raises(TooManyLogins):
            await service.login(Password(user, subject.password), None, "192.0.2.1")
        await service.login(Password(user, subject.password), None, "198.51.100.1")


async def _guess(service: ILogin, user: Which) -> None:
    for number in range(100):
        with pytest.raises(LoginFailed):
            await service.login(Password(user, f"guess {number}"), None, "192.0.2.1")


def make_login_tests(
    make: Callable[[PluginContext, Path], LoginSubject],
) -> type[LoginContract]:
    """Return the contract suite of one login service, for a test module to name.

    :param make: creates the subject from a context and an empty folder; called once per test.
    """

    class TestLogin(LoginContract):
        @pytest.fixture
        def subject(self, context: PluginContext, tmp_path: Path) -> LoginSubject:
            return make(context, tmp_path)

    return TestLogin
