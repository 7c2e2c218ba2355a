"""The part of identity API v3 that clients need: tokens, the catalog, and the user's projects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.addresses import address
from bootvol.api.dialects import Dialect
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.http import public_url, token
from bootvol.api.keystone.bodies import read_body
from bootvol.api.keystone.catalog import ServiceShown
from bootvol.api.keystone.context import IdentityContext, SessionContext, refusals
from bootvol.api.keystone.v3_bodies import LogIn
from bootvol.api.keystone.versions import OneVersion, version_3
from bootvol.api.operations import Admission, document, operation
from bootvol.errors import BootvolError, Forbidden, NotFound, Unauthorized
from bootvol.login import IKnowingLogin, Named, Session
from bootvol.policy import Right

_SUBJECT: Final = "X-Subject-Token"


class NamedShown(TypedDict):
    """A user, a project, a role or a domain."""

    id: str
    name: str


class ProjectOfToken(NamedShown):
    """The project of a token."""

    domain: NamedShown


class UserOfToken(ProjectOfToken):
    """The user of a token."""

    password_expires_at: None


class ScopeOfToken(TypedDict, total=False):
    """The project of a token, and the roles there; empty for an unscoped token."""

    project: ProjectOfToken
    is_domain: bool
    roles: list[NamedShown]


class TokenShown(ScopeOfToken):
    """A token, without its secret."""

    methods: list[str]
    user: UserOfToken
    issued_at: str
    expires_at: str
    audit_ids: list[str]
    catalog: list[ServiceShown]


class OneToken(TypedDict):
    token: TokenShown


class OneCatalog(TypedDict):
    catalog: list[ServiceShown]


class ProjectShown(NamedShown):
    """A project that a user may log in to."""

    description: str
    enabled: bool
    domain_id: str


class KnownUser(NamedShown):
    """A user."""

    enabled: bool
    domain_id: str


class OneUser(TypedDict):
    user: KnownUser


class LinksShown(TypedDict):
    self: None
    next: None


class OneProject(TypedDict):
    project: ProjectShown


class Projects(TypedDict):
    projects: list[ProjectShown]
    links: LinksShown


class Users(TypedDict):
    users: list[KnownUser]
    links: LinksShown


#: The only domain. Clients must name a domain, and all use this one by default.
_DOMAIN: Final[NamedShown] = {"id": "default", "name": "Default"}


@document("identity_v3_show_version", "/")
def show_version(url: str) -> OneVersion:
    """Show version 3 of the identity API."""
    return {"version": version_3(url)}


@operation(
    "identity_v3_log_in",
    "POST",
    "auth/tokens",
    admission=Admission.NOBODY,
    status=201,
    refusals=(429,),
)
async def log_in(context: IdentityContext, body: LogIn) -> OneToken:
    """Log in by password or by an earlier token; the new token is in ``X-Subject-Token``."""
    session = await context.services.login.login(
        body.auth.identity.credentials(), body.auth.project(), address(context.request)
    )
    return _shown(context, session)


@operation(
    "identity_v3_show_token",
    "GET",
    "auth/tokens",
    admission=Admission.SESSION,
    headers=(_SUBJECT,),
    refusals=(403, 404),
)
async def show_token(context: SessionContext) -> OneToken:
    """Show the token in ``X-Subject-Token``."""
    return _shown(context, await _subject(context))


@operation(
    "identity_v3_revoke_token",
    "DELETE",
    "auth/tokens",
    admission=Admission.SESSION,
    status=204,
    headers=(_SUBJECT,),
    refusals=(403, 404),
)
async def revoke_token(context: SessionContext) -> None:
    """Revoke the token in ``X-Subject-Token``."""
    session = await _subject(context)
    # The disk with the revoked tokens may be slow.
    with context.services.revoking.place(session.user.id):
        await context.services.login.revoke(session.token)


@operation("identity_v3_show_catalog", "GET", "auth/catalog", admission=Admission.SESSION)
async def show_catalog(context: SessionContext) -> OneCatalog:
    """List the services, with their URLs for the token's project."""
    url = public_url(context.request)
    return {"catalog": context.services.catalog.v3(url, context.session.project)}


@operation(
    "identity_v3_list_projects",
    "GET",
    "auth/projects",
    admission=Admission.SESSION,
    query=("name",),
)
async def list_projects(context: SessionContext) -> Projects:
    """List the projects that the user may log in to."""
    return _projects(context, context.session.projects)


@operation(
    "identity_v3_list_all_projects",
    "GET",
    "projects",
    admission=Admission.SESSION,
    query=("name",),
)
async def list_all_projects(context: SessionContext) -> Projects:
    """List all projects; callers without the right to see them see those of the user."""
    known = _known(context)
    return _projects(context, context.session.projects if known is None else known.projects())


@operation(
    "identity_v3_list_users",
    "GET",
    "users",
    admission=Admission.SESSION,
    query=("name",),
    refusals=(403,),
)
async def list_users(context: SessionContext) -> Users:
    """List all users; callers without the right to see them see only themselves.

    For the name of another user, these callers get 403.  Clients then take the name for an id.
    """
    known = _known(context)
    users = [context.session.user] if known is None else known.users()
    found = [_user(each) for each in _named_so(context, users)]
    if known is None and not found:
        raise Forbidden
    return {"users": found, "links": {"self": None, "next": None}}


@operation(
    "identity_v3_show_user",
    "GET",
    "users/<user>",
    admission=Admission.SESSION,
    refusals=(403, 404),
)
async def show_user(context: SessionContext, user: str) -> OneUser:
    """Show a user; callers without the right to see all users see only themselves."""
    known = _known(context)
    users = [context.session.user] if known is None else known.users()
    return {"user": _user(_with_id(users, user, Forbidden if known is None else NotFound))}


@operation(
    "identity_v3_list_projects_of_user",
    "GET",
    "users/<user>/projects",
    admission=Admission.SESSION,
    query=("name",),
    refusals=(403,),
)
async def list_projects_of_user(context: SessionContext, user: str) -> Projects:
    """List the projects that the user may log in to; others may not see them."""
    if user != context.session.user.id:
        raise Forbidden
    return _projects(context, context.session.projects)


@operation(
    "identity_v3_show_project",
    "GET",
    "projects/<project_id>",
    admission=Admission.SESSION,
    refusals=(403, 404),
)
async def show_project(context: SessionContext, project_id: str) -> OneProject:
    """Show a project that the user may log in to, or with the right any project.

    All other projects are forbidden, whether they exist or not.  Clients then take the id for
    granted, and so share images with these projects, too.
    """
    known = _known(context)
    projects = context.session.projects if known is None else known.projects()
    missing = Forbidden if known is None else NotFound
    return {"project": _project(_with_id(projects, project_id, missing))}


def _known(context: SessionContext) -> IKnowingLogin | None:
    """Return the service that knows all users and projects, if the caller may see them."""
    login, policy = context.services.login, context.services.policy
    if IKnowingLogin.providedBy(login) and policy.grants(context.session.roles, Right.USERS):
        return IKnowingLogin(login)
    return None


def _named_so(context: SessionContext, found: Sequence[Named]) -> Sequence[Named]:
    """Return the users or projects with the name in the query; all without a name there."""
    args = context.request.args or {}
    names = [name.decode("utf-8", "replace") for name in args.get(b"name", ())]
    return [each for each in found if not names or each.name in names]


def _with_id(found: Sequence[Named], wanted: str, missing: type[BootvolError]) -> Named:
    """Return the user or project with an id.

    :raises BootvolError: of the type ``missing`` if there is none.
    """
    for each in found:
        if each.id == wanted:
            return each
    raise missing


def _user(user: Named) -> KnownUser:
    return {**_named(user), "enabled": True, "domain_id": _DOMAIN["id"]}


def _project(project: Named) -> ProjectShown:
    return {**_named(project), "description": "", "enabled": True, "domain_id": _DOMAIN["id"]}


def _projects(context: SessionContext, found: Sequence[Named]) -> Projects:
    return {
        "projects": [_project(each) for each in _named_so(context, found)],
        "links": {"self": None, "next": None},
    }


async def _subject(context: SessionContext) -> Session:
    """Return the session of a request's subject token: one's own, or for admins any user's.

    :raises NotFound: if the subject token is not valid, or not any more.
    :raises Forbidden: if another user owns the subject token, and the caller is not an admin.
    """
    try:
        subject = await context.services.login.session(
            token(context.request, _SUBJECT.encode("ascii"))
        )
    except Unauthorized:
        raise NotFound from None
    if subject.user != context.session.user:
        context.services.policy.check(context.session.roles, Right.TOKENS)
    return subject


def _shown(context: IdentityContext, session: Session) -> OneToken:
    """Return the view of a session, and set the header with its token."""
    context.request.setHeader(_SUBJECT.encode("ascii"), session.token.encode("ascii"))
    scope: ScopeOfToken = {}
    if session.project is not None:
        scope = {
            "project": {**_named(session.project), "domain": _DOMAIN},
            "is_domain": False,
            "roles": [{"id": role, "name": role} for role in sorted(session.roles)],
        }
    return {
        "token": {
            "methods": [session.method],
            "user": {**_named(session.user), "domain": _DOMAIN, "password_expires_at": None},
            "issued_at": _time(session.issued_at),
            "expires_at": _time(session.expires_at),
            "audit_ids": [],
            **scope,
            "catalog": context.services.catalog.v3(public_url(context.request), session.project),
        }
    }


def _named(what: Named) -> NamedShown:
    return {"id": what.id, "name": what.name}


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


V3: Final = Dialect[IdentityContext](
    prefixes=("identity/v3",),
    groups={
        "identity v3": (
            show_version,
            log_in,
            show_token,
            revoke_token,
            show_catalog,
            list_projects,
            list_all_projects,
            list_users,
            show_user,
            list_projects_of_user,
            show_project,
        )
    },
    faults=TITLED_FAULTS,
    refusals=refusals,
    read_body=read_body,
)
