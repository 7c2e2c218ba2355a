"""The plugin's settings: the users, and their roles in each project."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from bootvol import passwords
from bootvol.options import Options, OwnFolder, SecretFile, Text, indirect

#: Longest lifetime of a token in hours.
LONGEST_LIFE: Final = 24 * 365


def _read(value: object, info: ValidationInfo) -> object:
    """Return a hash: see :func:`bootvol.options.indirect`."""
    value = indirect(value, info)
    if isinstance(value, str) and not passwords.is_hash(value):
        raise ValueError("this is not a hash; make one with `bootvol hash-password`")
    return value


#: An argon2id hash.
Hash = Annotated[str, BeforeValidator(_read)]
#: An id is part of tokens.  A project's id is part of paths as well.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,64}$")]


def _name(data: dict[str, object]) -> object:
    return data.get("name", "unnamed")


class ProjectTable(Options):
    """A table ``[[identity.projects]]``."""

    name: Text
    # In a path, an id of dots alone would name another folder (RFC 3986, section 5.2.4).
    id: Annotated[str, Field(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=64)] = Field(
        default_factory=_name, validate_default=True
    )


class AccessKeyTable(Options):
    """A table ``[[identity.users.access_keys]]``."""

    key: str = Field(pattern=r"^[!-~]{1,255}$")
    secret_hash: Hash


class UserTable(Options):
    """A table ``[[identity.users]]``.  The keys of ``roles`` are names of projects."""

    name: Text
    id: Id = Field(default_factory=_name, validate_default=True)
    password_hash: Hash | None = None
    access_keys: list[AccessKeyTable] = Field(default=[])
    roles: dict[str, Annotated[list[Text], Field(min_length=1)]] = Field(default={})

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.password_hash is None and not self.access_keys:
            raise ValueError(f"the user {self.name!r} has neither password_hash nor access_keys")
        return self


class EmbeddedOptions(Options):
    """The table ``[identity]`` of this plugin."""

    directory: OwnFolder = Field(default=Path("var/identity"), validate_default=True)
    """The folder of the signing key, which bootvol makes once, and of the list of revoked
    tokens.
    """
    key_file: SecretFile | None = None
    """A file of at least 32 random bytes, as the signing key."""
    address_failures: Annotated[int, Field(ge=0)] = 50
    """Failed log-ins from one address before further log-ins are delayed.  0 means no limit."""
    token_hours: Annotated[float, Field(gt=0, le=LONGEST_LIFE)] = 12.0
    """Lifetime of a token in hours."""
    projects: list[ProjectTable] = Field(min_length=1)
    """The projects (tenants): tables with ``name`` and ``id``."""
    users: list[UserTable] = Field(min_length=1)
    """The users: tables with ``name``, ``id``, ``password_hash``, ``access_keys``, and ``roles`` by
    project.
    """

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _differ("project name", (each.name for each in self.projects))
        _differ("project id", (each.id for each in self.projects))
        _differ("user name", (each.name for each in self.users))
        _differ("user id", (each.id for each in self.users))
        _differ("access key", (key.key for each in self.users for key in each.access_keys))
        known = {each.name for each in self.projects}
        for user in self.users:
            for project in user.roles:
                if project not in known:
                    raise ValueError(
                        f"the user {user.name!r} has roles in {project!r}, which is not a project"
                    )
        return self


def _differ(what: str, given: Iterable[str]) -> None:
    seen: set[str] = set()
    for each in given:
        if each in seen:
            raise ValueError(f"the {what} {each!r} is given twice")
        seen.add(each)
