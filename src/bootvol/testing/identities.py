"""The contract suite of :class:`bootvol.interfaces.IIdentity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from bootvol.errors import Unauthorized
from bootvol.interfaces import IIdentity, PluginContext
from bootvol.model import Caller
from bootvol.testing.contract import Contract


@attrs.frozen
class Subject:
    """An identity service, and what the suite is told about it.

    :ivar valid: tokens that it knows, and whom they speak for; of at least two tenants.
    """

    identity: IIdentity
    valid: Mapping[str, Caller]


class IdentityContract(Contract):
    """What every identity service must do.  Subclasses provide the fixture ``subject``."""

    @ensureDeferred
    async def test_provides_the_interface(self, subject: Subject) -> None:
        verifyObject(IIdentity, subject.identity)

    @ensureDeferred
    async def test_knows_its_own(self, subject: Subject) -> None:
        assert len({caller.tenant for caller in subject.valid.values()}) > 1
        for token, caller in subject.valid.items():
            assert await subject.identity.authenticate(token) == caller

    @ensureDeferred
    async def test_knows_nobody_else(self, subject: Subject) -> None:
        token = next(iter(subject.valid))
        changed = [token[:-1], token + "x", token.swapcase(), f" {token}", f"{token}\0"]
        for wrong in ["", "x", "é", "\ud800", "x" * 100_000, "\r\n", *changed]:
            with pytest.raises(Unauthorized):
                await subject.identity.authenticate(wrong)


def make_identity_tests(
    make: Callable[[PluginContext, Path], Subject],
) -> type[IdentityContract]:
    """Return the suite for one identity service, to be named in a test module.

    :param make: makes the subject from a context and an empty folder; called once a test.
    """

    class TestIdentity(IdentityContract):
        @pytest.fixture
        def subject(self, context: PluginContext, tmp_path: Path) -> Subject:
            return make(context, tmp_path)

    return TestIdentity
