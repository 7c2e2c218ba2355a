"""Identity API v2.0, for HP's clients of 2012 (specification, section 1.2)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Self

from klein import Klein
from pydantic import BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from twisted.web.iweb import IRequest

from bootvol.api.addresses import address
from bootvol.api.embedded.bodies import ONE_WAY, Body, Secret, Text, read
from bootvol.api.embedded.catalog import Catalog
from bootvol.api.http import Faults, Reply, add_error_handler, public_url, route, token
from bootvol.api.openapi import exactly
from bootvol.errors import BootvolError
from bootvol.fair_share import Paced
from bootvol.login import AccessKey, Credentials, EarlierToken, ILogin, Password, Session, Which


def _id(value: object) -> object:
    # fog sends an id of digits only as a number.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value


class _Body(Body):
    model_config = ConfigDict(alias_generator=to_camel)


class _AccessKey(_Body):
    access_key: Text
    secret_key: Secret


class _Password(_Body):
    username: Text | None = None
    user_id: Text | None = None
    password: Secret


class _Token(Body):
    id: Secret


class _Auth(_Body):
    api_access_key_credentials: _AccessKey | None = None
    password_credentials: _Password | None = None
    token: _Token | None = None
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


class _Login(Body):
    auth: _Auth


def _fault(error: BootvolError) -> dict[str, Any]:
    content = {"message": error.message, "details": error.remedy, "code": error.status}
    return {"identityFault": content}


def _schema(status: int) -> dict[str, Any]:
    text = {"type": "string"}
    return exactly(
        {"identityFault": exactly({"message": text, "details": text, "code": {"const": status}})}
    )


#: The form of errors.
FAULTS: Final = Faults(_fault, _schema, name="v2-")


def version(url: str) -> dict[str, Any]:
    """Return this version's entry in the version documents."""
    return {
        "id": "v2.0",
        "status": "deprecated",
        "updated": "2014-04-17T00:00:00Z",
        "links": [{"rel": "self", "href": f"{url}/identity/v2.0/"}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.identity-v2.0+json"}
        ],
    }


class V2:
    """The identity API v2.0, below ``/v2.0`` and ``/identity/v2.0``.

    :param pace: paces log-ins, as for :class:`~bootvol.api.embedded.v3.V3`.
    """

    def __init__(self, login: ILogin, catalog: Catalog, pace: Paced) -> None:
        self._pace = pace
        self.app = Klein()
        self._login = login
        self._catalog = catalog
        route(self.app, "GET", "/", self._version)
        route(self.app, "POST", "/tokens", self._log_in)
        route(self.app, "GET", "/tenants", self._tenants)
        add_error_handler(self.app, FAULTS)

    async def _version(self, request: IRequest) -> Reply:
        return Reply({"version": version(public_url(request))})

    async def _log_in(self, request: IRequest) -> Reply:
        await self._pace.turn(address(request))
        auth = read(request, _Login).auth
        session = await self._login.login(auth.credentials(), auth.project(), address(request))
        return Reply({"access": self._shown(public_url(request), session)})

    async def _tenants(self, request: IRequest) -> Reply:
        session = await self._login.session(token(request))
        tenants = [
            {"id": each.id, "name": each.name, "description": None, "enabled": True}
            for each in session.projects
        ]
        return Reply({"tenants": tenants, "tenants_links": []})

    def _shown(self, url: str, session: Session) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": session.token,
            "issued_at": _time(session.issued_at),
            "expires": _time(session.expires_at),
        }
        if session.project is not None:
            shown["tenant"] = {"id": session.project.id, "name": session.project.name}
        return {
            "token": shown,
            "user": {
                "id": session.user.id,
                "name": session.user.name,
                "roles": [{"id": role, "name": role} for role in sorted(session.roles)],
            },
            "serviceCatalog": self._catalog.v2(url, session.project),
        }


def _time(when: datetime) -> str:
    """Return a time with milliseconds: ``2011-10-14T21:42:59.455Z``."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
