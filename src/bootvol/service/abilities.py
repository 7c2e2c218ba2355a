"""The abilities of backends that the extra specs of volume types ask for.

The names and the comparisons are Cinder's, as operators know them: ``vendor_name`` with the value
``bootvol``, or ``capabilities:multiattach`` with ``<is> True``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

#: The abilities of each backend, apart from its name.
COMMON: Final[Mapping[str, object]] = {
    "vendor_name": "bootvol",
    "driver_version": "1.0",
    "storage_protocol": "bootvol",
    "reserved_percentage": 0,
    "multiattach": False,
    "qos_support": True,
    "replication_enabled": False,
}
#: The scope of extra specs that ask for abilities.
SCOPE: Final = "capabilities:"
_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})

#: The comparisons of numbers.
_NUMBERS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    # At least.
    "=": float.__ge__,
    "==": float.__eq__,
    "!=": float.__ne__,
    "<=": float.__le__,
    ">=": float.__ge__,
}
#: The comparisons of texts.
_TEXTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "s==": str.__eq__,
    "s!=": str.__ne__,
    "s<": str.__lt__,
    "s<=": str.__le__,
    "s>": str.__gt__,
    "s>=": str.__ge__,
    "<in>": str.__contains__,
    "<is>": lambda found, wanted: _truth(found) is _truth(wanted),
}


def of_backend(name: str) -> Mapping[str, object]:
    """Return the abilities of a backend, by Cinder's names."""
    return {**COMMON, "volume_backend_name": name}


def unmet(extra_specs: Mapping[str, str], backend: str) -> Sequence[str]:
    """Return the extra specs that a backend does not meet, in order.

    A spec without the scope ``capabilities:`` counts only if its name is one of the abilities:
    operators also keep notes of their own in extra specs.

    :param backend: the name of the backend.
    """
    abilities = of_backend(backend)
    return sorted(
        name
        for name, wanted in extra_specs.items()
        if (name.startswith(SCOPE) or name in abilities)
        and not _meets(abilities.get(name.removeprefix(SCOPE)), wanted)
    )


def _meets(ability: object, wanted: str) -> bool:
    """Compare an ability, None if missing, with the value of an extra spec."""
    if ability is None:
        return False
    found, words = str(ability), wanted.split()
    operator, values = (words[0], words[1:]) if words else ("", [])
    if operator == "<or>":
        # Operators stand between the values: <or> a <or> b.
        return found in values[::2]
    if operator in _TEXTS:
        return bool(values) and _TEXTS[operator](found, values[0])
    if operator in _NUMBERS:
        try:
            return bool(values) and _NUMBERS[operator](float(found), float(values[0]))
        except ValueError:
            return False
    return found == wanted


def _truth(text: str) -> bool:
    return text.lower() in _TRUE
