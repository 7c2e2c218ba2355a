"""The plugin's settings: where Keystone is, and as whom it is asked."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from bootvol.options import ConfigPath, Options, Secret
from bootvol_plugins.http.urls import Refused, parse

_VERSION: Final = "v3"

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Access(Options):
    """How Keystone is reached by a user of bootvol's own.

    :ivar url: Keystone's, with or without ``/v3``.
    :ivar username: that user's; with ``password`` and ``project``.
    :ivar application_credential_id: that user's application credential, in place of these.
    :ivar ca: a PEM file of the authorities that Keystone is trusted by; without one, the system's.
    :ivar timeout: seconds that Keystone may take for an answer.
    """

    url: str
    username: Name | None = None
    password: Secret | None = None
    project: Name = "service"
    user_domain: Name = "Default"
    project_domain: Name = "Default"
    application_credential_id: Name | None = None
    application_credential_secret: Secret | None = None
    ca: ConfigPath | None = None
    timeout: float = Field(default=10.0, gt=0, le=600)

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
        # It is for one project: none may be asked for.
        method = "application_credential"
        return {"auth": {"identity": {"methods": [method], method: credential}}}


class KeystoneOptions(Access):
    """``[identity]`` of this plugin: its user may validate tokens, within ``timeout``.

    :ivar cache_seconds: how long an answer is good for, so that a token that was revoked, or a role
        that was taken away, may count so long still.
    :ivar cache_tokens: how many answers are kept.
    """

    cache_seconds: float = Field(default=60.0, ge=0, le=3600)
    cache_tokens: int = Field(default=10_000, ge=1, le=1_000_000)
