"""The plugin's settings: Keystone's URL, and the credentials of bootvol's own user."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from bootvol.options import Options, Secret, TrustedFile
from bootvol_plugins.http.urls import Refused, parse

_VERSION: Final = "v3"

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Access(Options):
    """Access to Keystone with a user of bootvol's own."""

    url: str
    """URL of Keystone, with or without ``/v3``."""
    username: Name | None = None
    """Name of bootvol's own user."""
    password: Secret | None = None
    """Password of bootvol's own user."""
    project: Name = "service"
    """Project that the user logs in to."""
    user_domain: Name = "Default"
    """Domain of the user."""
    project_domain: Name = "Default"
    """Domain of the project."""
    application_credential_id: Name | None = None
    """Application credential of the user, instead of ``username``, ``password`` and ``project``."""
    application_credential_secret: Secret | None = None
    """Secret of the application credential."""
    ca: TrustedFile | None = None
    """A PEM file with Keystone's certificate authorities.  The default is the system's."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Longest time in seconds for an answer of Keystone."""

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
        if root.endswith("/v2.0"):
            raise ValueError("this is version 2.0 of the identity API; name the URL of version 3")
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

    def login(self) -> dict[str, object]:
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
    """Lifetime of a cached answer in seconds.  A revoked token or role stays valid for at most this
    time.
    """
    cache_tokens: int = Field(default=10_000, ge=1, le=1_000_000)
    """Largest number of cached answers."""
