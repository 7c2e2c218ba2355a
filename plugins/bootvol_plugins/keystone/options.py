"""The plugin's settings: Keystone's URL, and the credentials of bootvol's own user."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from bootvol.options import Options, Secret, TrustedFile
from bootvol_plugins.http.urls import Refused, parse

_VERSION: Final = "v3"

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Access(Options):
    """Access to Keystone with a user of bootvol's own."""

    url: str
    """Keystone's, with or without ``/v3``."""
    username: Name | None = None
    """The name of bootvol's own user."""
    password: Secret | None = None
    """That user's."""
    project: Name = "service"
    """What that user logs in to."""
    user_domain: Name = "Default"
    """Where that user is found."""
    project_domain: Name = "Default"
    """Where that project is found."""
    application_credential_id: Name | None = None
    """A credential of that user, in place of name, password and project."""
    application_credential_secret: Secret | None = None
    """The secret of that credential."""
    ca: TrustedFile | None = None
    """A PEM file of the authorities that Keystone is trusted by; without one, the system's."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds that Keystone may take for an answer."""

    @field_validator("url")
    @classmethod
    def _with_version(cls, value: str) -> str:
        try:
            url = parse(value)
        except Refused as error:
            raise ValueError(f"this {error}") from None
        if url.query:
            raise ValueError("this has a query")
        root = value.rstrip("/")
        return root if root.endswith(f"/{_VERSION}") else f"{root}/{_VERSION}"

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        by_password = (self.username, self.password)
        by_credential = (self.application_credential_id, self.application_credential_secret)
        given = [way for way in (by_password, by_credential) if way != (None, None)]
        if len(given) != 1 or None in given[0]:
            raise ValueError(
                "bootvol's own user is given either by username and password, or by"
                " application_credential_id and application_credential_secret"
            )
        return self

    def login(self) -> dict[str, Any]:
        """Return the body of the request for a token of bootvol's own (Identity API v3)."""
        if self.password is not None:
            user = {
                "name": self.username,
                "domain": {"name": self.user_domain},
                "password": self.password.get_secret_value(),
            }
            identity = {"methods": ["password"], "password": {"user": user}}
            project = {"name": self.project, "domain": {"name": self.project_domain}}
            return {"auth": {"identity": identity, "scope": {"project": project}}}
        secret = self.application_credential_secret
        credential = {
            "id": self.application_credential_id,
            "secret": "" if secret is None else secret.get_secret_value(),
        }
        # The credential is bound to one project, so the request must not name a project.
        method = "application_credential"
        return {"auth": {"identity": {"methods": [method], method: credential}}}


class KeystoneOptions(Access):
    """The table ``[identity]`` of this plugin: its user may validate tokens within ``timeout``."""

    cache_seconds: float = Field(default=60.0, ge=0, le=3600)
    """How long an answer is good for, so that a token that was revoked, or a role that was taken
    away, may count so long still.
    """
    cache_tokens: int = Field(default=10_000, ge=1, le=1_000_000)
    """How many answers are kept."""
