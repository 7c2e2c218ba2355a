"""The abilities of backends, and the extra specs that ask for them."""

from __future__ import annotations

import pytest

from bootvol.service.abilities import unmet


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("volume_backend_name", "local", True),
        ("volume_backend_name", "other", False),
        ("capabilities:volume_backend_name", "other", False),
        ("vendor_name", "bootvol", True),
        ("vendor_name", "s== bootvol", True),
        ("vendor_name", "s!= bootvol", False),
        ("vendor_name", "<in> boot", True),
        ("vendor_name", "<or> acme <or> bootvol", True),
        ("vendor_name", "<or> acme <or> boot", False),
        ("vendor_name", "<or>", False),
        ("vendor_name", "", False),
        ("vendor_name", "> 1", False),
        ("vendor_name", ">= 1", False),
        ("capabilities:vendor_name", "bootvol", True),
        ("capabilities:vendor_name", "acme", False),
        ("multiattach", "<is> True", False),
        ("multiattach", "<is> False", True),
        ("multiattach", "<is>", False),
        ("capabilities:qos_support", "<is> yes", True),
        ("reserved_percentage", "<= 5", True),
        ("reserved_percentage", "== 0.0", True),
        ("reserved_percentage", "!= 0", False),
        ("reserved_percentage", "= 1", False),
        ("reserved_percentage", ">= x", False),
        ("capabilities:dedup", "<is> True", False),
        # Notes of operators, and words of other drivers.
        ("dedup", "<is> True", True),
        ("netapp:dedup", "true", True),
    ],
)
def test_extra_specs_ask_for_abilities(name: str, value: str, met: bool) -> None:
    assert unmet({name: value}, "local") == ([] if met else [name])
