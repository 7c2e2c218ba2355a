"""Request bodies of the identity API v3."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bootvol.api.keystone.bodies import ONE_WAY, LoginBody, Secret, Text
from bootvol.errors import LoginFailed
from bootvol.login import Credentials, EarlierToken, Password, Which


class DomainReference(LoginBody):
    id: Text | None = None
    name: Text | None = None


class Reference(LoginBody):
    """A user or a project."""

    id: Text | None = None
    name: Text | None = None
    domain: DomainReference | None = None

    def which(self) -> Which:
        """Return the user or project as a reference for the log-in.

        :raises LoginFailed: if the domain does not exist.
        """
        domain = self.domain or DomainReference()
        named = (domain.id or "default", (domain.name or "Default").casefold())
        if named != ("default", "default"):
            raise LoginFailed
        return Which(self.id, self.name)


class UserWithPassword(Reference):
    password: Secret


class PasswordMethod(LoginBody):
    user: UserWithPassword


class TokenMethod(LoginBody):
    id: Secret


class IdentityMethods(LoginBody):
    methods: list[Text] = Field(min_length=1)
    password: PasswordMethod | None = None
    token: TokenMethod | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        given = {"password": self.password, "token": self.token}
        if len(self.methods) != 1 or given.get(self.methods[0]) is None:
            raise ValueError(ONE_WAY)
        return self

    def credentials(self) -> Credentials:
        """Return the credentials of a log-in."""
        if self.methods == ["password"] and self.password:
            user = self.password.user
            return Password(user.which(), user.password)
        return EarlierToken(self.token.id if self.token else "")


class Scope(LoginBody):
    project: Reference


class Unscoped(LoginBody):
    unscoped: dict[str, object]


class Auth(LoginBody):
    identity: IdentityMethods
    scope: Scope | Unscoped | Text | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if isinstance(self.scope, str) and self.scope != "unscoped":
            raise ValueError("a token is for a project, or unscoped")
        return self

    def project(self) -> Which | None:
        """Return the project of the token; None for an unscoped token."""
        return self.scope.project.which() if isinstance(self.scope, Scope) else None


class LogIn(LoginBody):
    """A log-in, for a project or unscoped."""

    auth: Auth
