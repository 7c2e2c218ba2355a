"""The suite of the configured identity service, with one token that the service knows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.cli.check.configured import TOKEN, build
from bootvol.errors import BootvolError
from bootvol.interfaces import IClosable, PluginContext
from bootvol.testing.identities import IdentityContract, Subject


class TestIdentity(IdentityContract):
    """The identity service, as the operator has configured it."""

    @pytest_twisted.async_yield_fixture
    async def subject(self, context: PluginContext) -> AsyncIterator[Subject]:
        identity = build(context)
        token = os.environ[TOKEN]
        try:
            try:
                caller = await identity.authenticate(token)
            except BootvolError as error:
                pytest.exit(f"the token of {TOKEN} is not accepted: {error}")
            yield Subject(identity, {token: caller})
        finally:
            if IClosable.providedBy(identity):
                await identity.close()

    @ensureDeferred
    async def test_tells_tenants_apart(self, subject: Subject) -> None:
        pytest.skip("the check would need tokens of two tenants")
