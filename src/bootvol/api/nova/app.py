"""The routes of Nova v1.1: each reads its request, calls the core, and shows what came."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from bootvol.api.http import Reply, read_json, to_the_end, write
from bootvol.api.nova import bodies, versions, views
from bootvol.api.nova.faults import fault
from bootvol.api.nova.paging import page
from bootvol.errors import (
    BootvolError,
    Forbidden,
    MalformedUrl,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    VolumeNotFound,
)
from bootvol.interfaces import IIdentity
from bootvol.model import Caller
from bootvol.service.goldens import Goldens
from bootvol.service.images import Images
from bootvol.service.volumes import Volumes

P = ParamSpec("P")
Handler = Callable[Concatenate["NovaApi", IRequest, Caller, P], Coroutine[Any, Any, Reply]]

#: The largest id that a database may ever have given to a volume.
_LARGEST_ID: Final = 2**31 - 1
_BASE: Final = "/v1.1/<tenant>"


def _for_tenant(handler: Handler[P]) -> Callable[..., Deferred[bytes]]:
    """Let only the tenant's own callers in, and let the call end even if the client leaves."""

    @functools.wraps(handler)
    def route(
        self: NovaApi, request: IRequest, tenant: str, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[bytes]:
        async def call() -> Reply:
            caller = await self.caller(request, tenant)
            return await handler(self, request, caller, *args, **kwargs)

        answer = to_the_end(Deferred.fromCoroutine(call()))
        return answer.addCallback(lambda reply: write(request, reply))

    return route


class NovaApi:
    """Nova's dialect.

    :param identity: says whom a token speaks for.
    """

    app = Klein()
    _log = Logger()

    def __init__(
        self, identity: IIdentity, volumes: Volumes, images: Images, goldens: Goldens
    ) -> None:
        self._identity = identity
        self._volumes = volumes
        self._images = images
        self._goldens = goldens

    async def caller(self, request: IRequest, tenant: str) -> Caller:
        """Return who asks.

        :raises Unauthorized: nobody that is known.
        :raises MalformedUrl: somebody, but of another tenant.
        """
        token = request.getHeader(b"x-auth-token")
        if not token:
            raise Unauthorized
        caller = await self._identity.authenticate(token.decode("utf-8", "surrogateescape"))
        if caller.tenant != tenant:
            raise MalformedUrl
        return caller

    # --- versions ------------------------------------------------------------------------------

    @app.route("/", methods=["GET"])
    def version_list(self, request: IRequest) -> bytes:
        """``GET /``."""
        return write(request, Reply(versions.version_list(request)))

    @app.route("/v1.1", methods=["GET"])
    @app.route("/v1.1/", methods=["GET"])
    def version_detail(self, request: IRequest) -> bytes:
        """``GET /v1.1/``."""
        return write(request, Reply(versions.version_detail(request)))

    # --- os-volumes (reference, section 5.5) -----------------------------------------------------

    @app.route(f"{_BASE}/os-volumes", methods=["GET"])
    @app.route(f"{_BASE}/os-volumes/detail", methods=["GET"])
    @_for_tenant
    async def list_volumes(self, request: IRequest, caller: Caller) -> Reply:
        """List the tenant's volumes; with and without ``detail`` the same."""
        limit, offset = page(request)
        listed = await self._volumes.listed(caller, limit=limit, offset=offset)
        return Reply({"volumes": [views.volume(each) for each in listed]})

    @app.route(f"{_BASE}/os-volumes", methods=["POST"])
    @_for_tenant
    async def create_volume(self, request: IRequest, caller: Caller) -> Reply:
        """Create a volume, with ``imageRef`` a bootable one."""
        wanted = bodies.create_volume(read_json(request))
        return Reply({"volume": views.volume(await self._volumes.create(caller, wanted))})

    @app.route(f"{_BASE}/os-volumes/<volume_id>", methods=["GET"])
    @_for_tenant
    async def show_volume(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Show a volume."""
        with _plainly_not_found:
            found = await self._volumes.get(caller, _number(volume_id))
        return Reply({"volume": views.volume(found)})

    @app.route(f"{_BASE}/os-volumes/<volume_id>", methods=["DELETE"])
    @_for_tenant
    async def delete_volume(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Delete a volume; the answer comes before it is gone."""
        with _plainly_not_found:
            await self._volumes.delete(caller, _number(volume_id))
        return Reply(status=202)

    @app.route(f"{_BASE}/os-volumes/<volume_id>/error", methods=["GET"])
    @_for_tenant
    async def show_error(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Show why a volume is in ``error``; null if it is not.  Beyond the reference."""
        with _plainly_not_found:
            found = await self._volumes.get(caller, _number(volume_id))
        return Reply({"error": views.error(found.error)})

    @app.route(f"{_BASE}/os-volumes/<volume_id>/connection", methods=["GET"])
    @_for_tenant
    async def show_connection(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Show admins how a hypervisor reaches a volume.  Beyond the reference."""
        with _plainly_not_found:
            found = await self._volumes.connection(caller, _number(volume_id))
        return Reply({"connection": views.connection(found)})

    # --- hp-bootable-volumes (HP Bootable Volume API, section 4.4.1) -----------------------------

    @app.route(f"{_BASE}/hp-bootable-volumes", methods=["GET"])
    @_for_tenant
    async def list_bootable(self, request: IRequest, caller: Caller) -> Reply:
        """List the volumes that were created from an image."""
        limit, offset = page(request)
        listed = await self._volumes.listed(caller, bootable=True, limit=limit, offset=offset)
        return Reply({"volumes": [views.bootable_volume(each) for each in listed]})

    @app.route(f"{_BASE}/hp-bootable-volumes/<volume_id>", methods=["GET"])
    @_for_tenant
    async def show_bootable(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Show a volume that was created from an image."""
        found = await self._volumes.get(caller, _number(volume_id), bootable=True)
        return Reply({"volume": views.bootable_volume(found)})

    @app.route(f"{_BASE}/hp-bootable-volumes/<volume_id>/import", methods=["GET"])
    @_for_tenant
    async def show_import(self, request: IRequest, caller: Caller, volume_id: str) -> Reply:
        """Show how far the import of a bootable volume has come.  Beyond the reference."""
        found = await self._volumes.progress(caller, _number(volume_id))
        return Reply({"import": views.progress(found)})

    # --- golden volumes --------------------------------------------------------------------------

    @app.route(f"{_BASE}/golden-volumes", methods=["GET"])
    @_for_tenant
    async def list_goldens(self, request: IRequest, caller: Caller) -> Reply:
        """Show admins which images need no download, and what that was good for."""
        if not caller.is_admin:
            raise Forbidden
        found = await self._goldens.listed()
        return Reply(
            {
                "goldenVolumes": [views.golden(each) for each in found],
                "use": views.cache_use(self._goldens.use),
            }
        )

    # --- images ----------------------------------------------------------------------------------

    @app.route(f"{_BASE}/images", methods=["GET"])
    @app.route(f"{_BASE}/images/detail", methods=["GET"])
    @_for_tenant
    async def list_images(self, request: IRequest, caller: Caller) -> Reply:
        """List the images that a volume can be created from."""
        return Reply({"images": [views.image(each) for each in await self._images.listed(caller)]})

    # --- errors ----------------------------------------------------------------------------------

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with the fault that belongs to what was raised."""
        error = self._known(request, failure)
        return write(request, Reply(fault(error), error.status))

    def _known(self, request: IRequest, failure: Failure) -> BootvolError:
        error = failure.value
        if isinstance(error, BootvolError):
            return error
        if isinstance(error, WrongMethod):
            request.setHeader(b"Allow", ", ".join(error.valid_methods or ()).encode("ascii"))
            return MethodNotAllowed()
        if isinstance(error, HTTPException):
            return NotFound()
        self._log.failure(
            "{request_id} failed", failure, request_id=getattr(request, "request_id", "a request")
        )
        return BootvolError()


def _number(volume_id: str) -> int:
    """Return an id from a path.

    :raises VolumeNotFound: no volume can have it.
    """
    if not re.fullmatch("[0-9]{1,10}", volume_id) or int(volume_id) > _LARGEST_ID:
        raise VolumeNotFound(volume_id)
    return int(volume_id)


class _PlainlyNotFound:
    """Nova's own calls hide the id of what is not there (reference, section 2.5)."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, VolumeNotFound):
            raise NotFound from None


_plainly_not_found = _PlainlyNotFound()
