"""Every first-party identity service passes the same suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from bootvol.interfaces import PluginContext
from bootvol.login import AccessKey, Named, Password, Which
from bootvol.model import Caller
from bootvol.testing.identities import (
    IdentityContract,
    LoginSubject,
    Subject,
    make_identity_tests,
    make_login_tests,
)
from bootvol_plugins.static import PLUGIN, StaticOptions
from tests import people
from tests.daemons import OTHER_TENANT, TENANT
from tests.openstack.identity import Keystone
from tests.openstack.people import People


def _static(context: PluginContext, _folder: Path) -> Subject:
    tokens = [
        {"token": "Secret-1", "tenant": "one", "user": "ann", "roles": ["admin"]},
        {"token": "Secret-2", "tenant": "two", "user": "bob"},
    ]
    return Subject(
        PLUGIN.factory(StaticOptions.model_validate({"tokens": tokens}), context),
        {
            "Secret-1": Caller("ann", "one", frozenset({"admin"})),
            "Secret-2": Caller("bob", "two", frozenset({"member"})),
        },
    )


def _embedded(context: PluginContext, folder: Path) -> Subject:
    identity: Any = people.identity(context, folder)
    valid = {}
    for user, password, tenant in (
        ("ann", people.PASSWORD, TENANT),
        ("bob", people.BOBS, OTHER_TENANT),
    ):
        login = identity.login(Password(Which(name=user), password), Which(id=tenant), "")
        session = blockon(Deferred.fromCoroutine(login))
        valid[session.token] = Caller(session.user.id, tenant, session.roles)
    return Subject(identity, valid)


def _login(context: PluginContext, folder: Path) -> LoginSubject:
    return LoginSubject(
        lambda: people.identity(context, folder),
        Named("10", "ann"),
        people.PASSWORD,
        {
            Named(TENANT, "demo"): frozenset({"admin", "member"}),
            Named(OTHER_TENANT, "other"): frozenset({"member"}),
        },
        Named("closed", "closed"),
        [AccessKey(people.ACCESS_KEY, people.SECRET_KEY)],
    )


TestStatic = make_identity_tests(_static)
TestEmbedded = make_identity_tests(_embedded)
TestEmbeddedLogin = make_login_tests(_login)


class TestKeystone(IdentityContract):
    @pytest.fixture
    def subject(self, context: PluginContext, keystone: Keystone) -> Iterator[Subject]:
        """The callers of a real Keystone."""
        people = People.of(keystone)
        identity = people.identity(context.reactor)
        valid = {}
        for user, project, role in (("bob", "demo", "member"), ("ann", "other", "member")):
            caller = Caller(
                people.users[user], people.projects[project], frozenset({role, "reader"})
            )
            valid[people.token(user, project)] = caller
        yield Subject(identity, valid)
        blockon(Deferred.fromCoroutine(identity.close()))
