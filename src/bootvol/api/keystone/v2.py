"""Identity API v2.0, for HP's clients of 2012 (specification, section 1.2)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, NotRequired, Self

from pydantic import BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from bootvol.api.addresses import address
from bootvol.api.dialects import Dialect
from bootvol.api.http import Faults, public_url
from bootvol.api.keystone.bodies import ONE_WAY, LoginBody, Secret, Text, read_body
from bootvol.api.keystone.catalog import EarlierServiceShown
from bootvol.api.keystone.context import IdentityContext, SessionContext, refusals
from bootvol.api.keystone.versions import OneVersion, version_2
from bootvol.api.openapi import exactly
from bootvol.api.operations import Admission, document, operation
from bootvol.errors import BootvolError
from bootvol.jsons import JsonObject
from bootvol.login import AccessKey, Credentials, EarlierToken, Password, Session, Which


def _id(value: object) -> object:
    # fog sends an id of digits only as a number.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value


class _Body(LoginBody):
    model_config = ConfigDict(alias_generator=to_camel)


class AccessKeyCredentials(_Body):
    access_key: Text
    secret_key: Secret


class PasswordCredentials(_Body):
    username: Text | None = None
    user_id: Text | None = None
    password: Secret


class TokenCredentials(LoginBody):
    id: Secret


class EarlierAuth(_Body):
    api_access_key_credentials: AccessKeyCredentials | None = None
    password_credentials: PasswordCredentials | None = None
    token: TokenCredentials | None = None
    tenant_id: Annotated[Text | None, BeforeValidator(_id)] = None
    tenant_name: Text | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = (self.api_access_key_credentials, self.password_credentials, self.token)
        if sum(each is not None for each in given) != 1:
            raise ValueError(ONE_WAY)
        return self

    def credentials(self) -> Credentials:
        """Return the credentials of a log-in."""
        if self.api_access_key_credentials:
            pair = self.api_access_key_credentials
            return AccessKey(pair.access_key, pair.secret_key)
        if self.password_credentials:
            user = self.password_credentials
            return Password(Which(user.user_id, user.username), user.password)
        return EarlierToken(self.token.id if self.token else "")

    def project(self) -> Which | None:
        """Return the project of the token; None if the client names none."""
        which = Which(self.tenant_id or None, self.tenant_name or None)
        return which if which != Which() else None


class EarlierLogIn(LoginBody):
    """A log-in, for a tenant or without one."""

    auth: EarlierAuth


class TenantOfToken(TypedDict):
    """The tenant of a token."""

    id: str
    name: str


class EarlierTokenShown(TypedDict):
    """A token."""

    id: str
    issued_at: str
    expires: str
    tenant: NotRequired[TenantOfToken]


class RoleShown(TypedDict):
    """A role of a user in the tenant."""

    id: str
    name: str


class UserShown(TypedDict):
    """The user of a token."""

    id: str
    name: str
    roles: list[RoleShown]


class AccessShown(TypedDict):
    """The result of a log-in."""

    token: EarlierTokenShown
    user: UserShown
    serviceCatalog: list[EarlierServiceShown]


class OneAccess(TypedDict):
    access: AccessShown


class TenantShown(TypedDict):
    """A tenant that a user may log in to."""

    id: str
    name: str
    description: None
    enabled: bool


class Tenants(TypedDict):
    tenants: list[TenantShown]
    tenants_links: list[str]


def _fault(error: BootvolError, status: int) -> JsonObject:
    content = {"message": error.message, "details": error.remedy, "code": status}
    return {"identityFault": content}


def _schema(status: int) -> JsonObject:
    text = {"type": "string"}
    return exactly(
        {"identityFault": exactly({"message": text, "details": text, "code": {"const": status}})}
    )


#: The form of errors.
_FAULTS: Final = Faults(_fault, _schema, name="identity-v2-")


@document("identity_v2_show_version", "/")
def show_version(url: str) -> OneVersion:
    """Show version 2.0 of the identity API."""
    return {"version": version_2(url)}


@operation("identity_v2_log_in", "POST", "tokens", admission=Admission.NOBODY, refusals=(429,))
async def log_in(context: IdentityContext, body: EarlierLogIn) -> OneAccess:
    """Log in by access key, by password or by an earlier token."""
    session = await context.services.login.login(
        body.auth.credentials(), body.auth.project(), address(context.request)
    )
    return {"access": _shown(context, session)}


@operation("identity_v2_list_tenants", "GET", "tenants", admission=Admission.SESSION)
async def list_tenants(context: SessionContext) -> Tenants:
    """List the tenants that the user may log in to."""
    return {
        "tenants": [
            {"id": each.id, "name": each.name, "description": None, "enabled": True}
            for each in context.session.projects
        ],
        "tenants_links": [],
    }


def _shown(context: IdentityContext, session: Session) -> AccessShown:
    token: EarlierTokenShown = {
        "id": session.token,
        "issued_at": _time(session.issued_at),
        "expires": _time(session.expires_at),
    }
    if session.project is not None:
        token["tenant"] = {"id": session.project.id, "name": session.project.name}
    return {
        "token": token,
        "user": {
            "id": session.user.id,
            "name": session.user.name,
            "roles": [{"id": role, "name": role} for role in sorted(session.roles)],
        },
        "serviceCatalog": context.services.catalog.v2(public_url(context.request), session.project),
    }


def _time(when: datetime) -> str:
    """Return a time with milliseconds: ``2011-10-14T21:42:59.455Z``."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


V2: Final = Dialect[IdentityContext](
    prefixes=("v2.0", "identity/v2.0"),
    groups={"identity v2.0": (show_version, log_in, list_tenants)},
    faults=_FAULTS,
    refusals=refusals,
    read_body=read_body,
)
