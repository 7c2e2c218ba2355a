"""The table of rights: defaults, and mistakes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bootvol import settings
from bootvol.api.glance.dialect import GLANCE
from bootvol.api.keystone.dialect import KEYSTONE
from bootvol.api.nova.dialect import NOVA
from bootvol.api.operations import Admission
from bootvol.errors import ConfigurationError, Forbidden
from bootvol.policy import Policy, Right
from tests.daemons import configuration

ROOT = Path(__file__).parents[2]
OPERATING = set(Right) - {Right.READ, Right.WRITE}


def rights(policy: Policy, *roles: str) -> set[Right]:
    """Return the rights of a caller with these roles."""
    found = set()
    for right in Right:
        try:
            policy.check(roles, right)
        except Forbidden:
            continue
        found.add(right)
    return found


def test_every_right_is_a_key() -> None:
    assert set(Policy.model_fields) == {str(right) for right in Right}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((), set()),
        (("developer",), set()),
        (("reader",), {Right.READ}),
        (("member",), {Right.READ, Right.WRITE}),
        (("_member_",), {Right.READ, Right.WRITE}),
        (("Member", "developer"), {Right.READ, Right.WRITE}),
        (("admin",), set(Right) - {Right.FOREIGN_SERVERS}),
    ],
)
def test_the_default_is_what_openstack_has(roles: tuple[str, ...], expected: set[Right]) -> None:
    assert rights(Policy(), *roles) == expected


def test_no_call_is_forgotten() -> None:
    """A new call that writes, or shows data of other tenants, needs a right of its own."""
    needed = {each.handler.__name__: each.right for each in NOVA.operations}
    assert {name for name, right in needed.items() if right in OPERATING} == {
        "create_specs",
        "create_type",
        "delete_spec",
        "delete_type",
        "list_cached_images",
        "show_connection",
        "update_quota",
        "update_spec",
    }
    for operation in (*NOVA.operations, *GLANCE.operations):
        if operation.right is Right.READ:
            assert operation.method == "GET"
    # Publishing an image needs a right beside the declared one.
    assert {each.right for each in GLANCE.operations} == {Right.READ, Right.WRITE}


def test_only_the_identity_api_admits_callers_without_a_right() -> None:
    for dialect in (NOVA, GLANCE):
        assert {each.admission for each in dialect.operations} == {Admission.DOOR}
    open_paths = {
        each.path
        for dialect in KEYSTONE
        for each in dialect.operations
        if each.admission is Admission.NOBODY
    }
    assert open_paths == {"auth/tokens", "tokens"}


def load(folder: Path, table: str) -> Policy:
    """Return the policy of a configuration with these lines in the table ``[policy]``."""
    file = folder / "twistd.conf"
    file.write_text(configuration(8776, more=f"[policy]\n{table}"))
    return settings.load(file).policy


@pytest.mark.parametrize(
    ("file", "mark", "comment"), [("docs/identity.md", "", ""), ("twistd.conf", "# ", "# ")]
)
def test_the_default_is_as_documented(file: str, mark: str, comment: str) -> None:
    lines = (ROOT / file).read_text().partition(f"\n{mark}[policy]\n")[2].splitlines()
    shown = [line.removeprefix(comment) for line in lines[: len(Right)]]
    assert tomllib.loads("\n".join(shown)) == Policy().model_dump()


def test_what_is_given_replaces_the_default(tmp_path: Path) -> None:
    policy = load(tmp_path, 'connection = ["hypervisor"]\nquotas = []')
    assert rights(policy, "hypervisor") == {Right.CONNECTION}
    others = {Right.CONNECTION, Right.QUOTAS, Right.FOREIGN_SERVERS}
    assert rights(policy, "admin") == set(Right) - others


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            'reed = ["reader"]',
            "policy.reed: the key is unknown. Remove the key, or use one of: read, write,"
            " connection, volume_types, quotas, all_tenants, force, services, reset_status,"
            " manage, foreign_servers, golden_volumes, public_images, all_images, tokens, users.",
        ),
        ('read = "reader"', "policy.read: 'reader': Input should be a valid list. Correct the"),
        ("write = [1]", "policy.write[0]: 1: Input should be a valid string. Correct the value"),
        ('quotas = [""]', "policy.quotas[0]: '': String should have at least 1 character. Correct"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, table: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, table)
    assert f"{tmp_path}/twistd.conf: {told}" in caught.value.message
