"""The part of identity API v3 that clients need: tokens, the catalog, and the user's projects."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Self

from klein import Klein
from pydantic import Field, model_validator
from twisted.web.iweb import IRequest

from bootvol.api.addresses import address
from bootvol.api.embedded.bodies import ONE_WAY, Body, Secret, Text, read
from bootvol.api.embedded.catalog import Catalog
from bootvol.api.http import Faults, Reply, add_error_handler, public_url, route, token
from bootvol.api.openapi import exactly
from bootvol.errors import BootvolError, Forbidden, LoginFailed, NotFound, Unauthorized
from bootvol.fair_share import Paced
from bootvol.login import Credentials, EarlierToken, ILogin, Named, Password, Session, Which
from bootvol.policy import Policy, Right
from bootvol.service.inflight import InFlight

_SUBJECT: Final = b"X-Subject-Token"
#: The only domain. Clients must name a domain, and all use this one by default.
_DOMAIN: Final = {"id": "default", "name": "Default"}


class _Domain(Body):
    id: Text | None = None
    name: Text | None = None


class _Which(Body):
    """A user or a project."""

    id: Text | None = None
    name: Text | None = None
    domain: _Domain | None = None

    def which(self) -> Which:
        """Return the user or project as the core's value.

        :raises LoginFailed: if the domain does not exist.
        """
        domain = self.domain or _Domain()
        named = (domain.id or "default", (domain.name or "Default").casefold())
        if named != ("default", "default"):
            raise LoginFailed
        return Which(self.id, self.name)


class _User(_Which):
    password: Secret


class _PasswordMethod(Body):
    user: _User


class _TokenMethod(Body):
    id: Secret


class _Identity(Body):
    methods: list[Text] = Field(min_length=1)
    password: _PasswordMethod | None = None
    token: _TokenMethod | None = None

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


class _Scope(Body):
    project: _Which


class _Unscoped(Body):
    unscoped: dict[str, object]


class _Auth(Body):
    identity: _Identity
    scope: _Scope | _Unscoped | Text | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if isinstance(self.scope, str) and self.scope != "unscoped":
            raise ValueError("a token is for a project, or unscoped")
        return self

    def project(self) -> Which | None:
        """Return the project of the token; None for an unscoped token."""
        return self.scope.project.which() if isinstance(self.scope, _Scope) else None


class _Login(Body):
    auth: _Auth


def _fault(error: BootvolError) -> dict[str, Any]:
    title = HTTPStatus(error.status).phrase
    return {"error": {"code": error.status, "title": title, "message": error.message}}


def _schema(status: int) -> dict[str, Any]:
    content = {
        "code": {"const": status},
        "title": {"const": HTTPStatus(status).phrase},
        "message": {"type": "string"},
    }
    return exactly({"error": exactly(content)})


#: The form of errors.
FAULTS: Final = Faults(_fault, _schema)


def version(url: str) -> dict[str, Any]:
    """Return this version's entry in the version documents."""
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{url}/identity/v3/"}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
        ],
    }


class V3:
    """The identity API v3, below ``/identity/v3``.

    :param policy: decides who may see and revoke other users' tokens.
    :param most: maximum number of revocations of tokens at once.
    :param pace: paces log-ins, in turns of addresses, because reading a body takes the reactor's
        time.
    """

    def __init__(
        self, login: ILogin, policy: Policy, catalog: Catalog, most: int, pace: Paced
    ) -> None:
        self._pace = pace
        self.app = Klein()
        self._revoking = InFlight(most)
        self._login = login
        self._policy = policy
        self._catalog = catalog
        route(self.app, "GET", "/", self._version)
        route(self.app, "POST", "/auth/tokens", self._log_in)
        route(self.app, "GET", "/auth/tokens", self._show)
        route(self.app, "DELETE", "/auth/tokens", self._revoke)
        route(self.app, "GET", "/auth/catalog", self._show_catalog)
        for path in ("/auth/projects", "/projects", "/users/<user>/projects"):
            route(self.app, "GET", path, self._projects)
        add_error_handler(self.app, FAULTS)

    async def _version(self, request: IRequest) -> Reply:
        return Reply({"version": version(public_url(request))})

    async def _log_in(self, request: IRequest) -> Reply:
        await self._pace.turn(address(request))
        auth = read(request, _Login).auth
        session = await self._login.login(
            auth.identity.credentials(), auth.project(), address(request)
        )
        request.setHeader(_SUBJECT, session.token.encode("ascii"))
        return Reply(self._shown(request, session), 201)

    async def _show(self, request: IRequest) -> Reply:
        session = await self._subject(request)
        request.setHeader(_SUBJECT, session.token.encode("ascii"))
        return Reply(self._shown(request, session))

    async def _revoke(self, request: IRequest) -> Reply:
        session = await self._subject(request)
        # The disk with the revoked tokens may be slow.
        with self._revoking.place(session.user.id):
            await self._login.revoke(session.token)
        return Reply(status=204)

    async def _show_catalog(self, request: IRequest) -> Reply:
        session = await self._login.session(token(request))
        return Reply({"catalog": self._catalog.v3(public_url(request), session.project)})

    async def _projects(self, request: IRequest, user: str | None = None) -> Reply:
        """List the caller's own projects; OpenStack's client uses three paths for this list.

        :raises Forbidden: if the path names another user.
        """
        session = await self._login.session(token(request))
        if user not in (None, session.user.id):
            raise Forbidden
        names = [name.decode("utf-8", "replace") for name in request.args.get(b"name", ())]
        projects = [
            {**_named(each), "description": "", "enabled": True, "domain_id": _DOMAIN["id"]}
            for each in session.projects
            if not names or each.name in names
        ]
        return Reply({"projects": projects, "links": {"self": None, "next": None}})

    async def _subject(self, request: IRequest) -> Session:
        """Return the session of a request's subject token: one's own, or for admins any user's.

        :raises Unauthorized: if the caller has no valid token.
        :raises NotFound: if the subject token is not valid, or not any more.
        :raises Forbidden: if another user owns the subject token, and the caller is not an admin.
        """
        asking = await self._login.session(token(request))
        try:
            subject = await self._login.session(token(request, _SUBJECT))
        except Unauthorized:
            raise NotFound from None
        if subject.user != asking.user:
            self._policy.check(asking.roles, Right.TOKENS)
        return subject

    def _shown(self, request: IRequest, session: Session) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "methods": [session.method],
            "user": {**_named(session.user), "domain": _DOMAIN, "password_expires_at": None},
            "issued_at": _time(session.issued_at),
            "expires_at": _time(session.expires_at),
            "audit_ids": [],
        }
        if session.project is not None:
            shown["project"] = {**_named(session.project), "domain": _DOMAIN}
            shown["is_domain"] = False
            shown["roles"] = [{"id": role, "name": role} for role in sorted(session.roles)]
        shown["catalog"] = self._catalog.v3(public_url(request), session.project)
        return {"token": shown}


def _named(what: Named) -> dict[str, Any]:
    return {"id": what.id, "name": what.name}


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
