"""Every answer of the identity and image APIs fits the OpenAPI documents of these APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case

from bootvol.api.glance import dialect as glance
from bootvol.api.glance.patches import EARLIER_PATCH, PATCH
from bootvol.api.keystone import dialect as keystone
from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, TENANT
from tests.people import ACCESS_KEY, PASSWORD, PEOPLE, SECRET_KEY
from tests.processes import Process, process
from tests.system.test_openapi import HELD
from tests.waiting import LIMIT

schemathesis.serializer.alias(PATCH, "application/json")
schemathesis.serializer.alias(EARLIER_PATCH, "application/json")

IDENTITY = schemathesis.openapi.from_dict(keystone.description())
IMAGES = schemathesis.openapi.from_dict(glance.description())
V2 = "/v2.0/tokens"
V3 = "/identity/v3/auth/tokens"
USER = {"id": "10", "password": PASSWORD}
METHODS = {"methods": ["password"], "password": {"user": USER}}
DEMO = {"project": {"id": TENANT}}
#: Log-ins of all forms: path and body.
LOG_INS: list[tuple[str, dict[str, Any]]] = [
    (V3, {"auth": {"identity": METHODS, "scope": DEMO}}),
    (V3, {"auth": {"identity": METHODS}}),
    (V2, {"auth": {"passwordCredentials": {"username": "ann", "password": PASSWORD}}}),
    (
        V2,
        {
            "auth": {
                "apiAccessKeyCredentials": {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY},
                "tenantId": TENANT,
            }
        },
    ),
]
GENTLY = settings(
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@attrs.frozen
class Ann:
    """A daemon, and a client with Ann's log-ins.

    :ivar image: an image of the project, shared with another project.
    """

    daemon: Process
    answers: list[requests.Response]
    image: str = ""

    @property
    def token(self) -> str:
        """An admin's token for a project."""
        return self.answers[0].headers["X-Subject-Token"]

    def another(self) -> str:
        """Return a new token, obtained with the other one."""
        earlier = {"methods": ["token"], "token": {"id": self.token}}
        body: Any = {"auth": {"identity": earlier, "scope": DEMO}}
        answer = requests.post(self.daemon.url + V3, json=body, timeout=LIMIT)
        return answer.headers["X-Subject-Token"]

    def send(self, case: Case[Any], **headers: str) -> None:
        """Send a generated request, and compare the answer with the document."""
        answer = case.call_and_validate(
            base_url=self.daemon.url,
            headers={"X-Auth-Token": self.token, **headers},
            checks=HELD,
            timeout=LIMIT,
        )
        # The document has this status, but no request may cause it.
        assert answer.status_code != 500


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ann]:
    """A daemon with log-ins and an image."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "images").mkdir()
    (folder / "images" / "disk.raw").write_bytes(noise(1000))
    with process(folder, "writable = true", identity=PEOPLE) as daemon:
        # Log in before the generated requests: these fail often, and failures delay log-ins.
        answers = [
            requests.post(daemon.url + path, json=body, timeout=LIMIT) for path, body in LOG_INS
        ]
        ann = Ann(daemon, answers)
        yield attrs.evolve(ann, image=_shared_image(ann))


def _shared_image(ann: Ann) -> str:
    """Create an image with a member; return the image's id."""
    url, headers = f"{ann.daemon.url}/image/v2/images", {"X-Auth-Token": ann.token}
    body: Any = {"protected": True, "disk_format": "raw", "container_format": "bare"}
    image = requests.post(url, json=body, headers=headers, timeout=LIMIT).json()["id"]
    member = {"member": OTHER_TENANT}
    url = f"{url}/{image}/members"
    assert requests.post(url, json=member, headers=headers, timeout=LIMIT).status_code == 200
    return str(image)


@pytest.mark.parametrize("number", range(len(LOG_INS)))
def test_answers_to_log_ins_are_as_described(ann: Ann, number: int) -> None:
    answer, path = ann.answers[number], LOG_INS[number][0]
    assert answer.status_code in (200, 201)
    IDENTITY[path]["POST"].validate_response(answer)


@IDENTITY.parametrize()
@GENTLY
def test_every_answer_of_the_identity_api_is_as_described(case: Case[Any], ann: Ann) -> None:
    if "user" in case.path_parameters:
        case.path_parameters["user"] = "10"
    revokes = case.operation.method.upper() == "DELETE"
    ann.send(case, **{"X-Subject-Token": ann.another() if revokes else ann.token})


@IMAGES.parametrize()
@GENTLY
def test_every_answer_of_the_image_api_is_as_described(case: Case[Any], ann: Ann) -> None:
    send_about(case, ann, "disk.raw")


@IMAGES.parametrize()
@GENTLY
def test_answers_about_the_images_of_projects_are_as_described(case: Case[Any], ann: Ann) -> None:
    send_about(case, ann, ann.image)


def send_about(case: Case[Any], ann: Ann, image: str) -> None:
    """Send a generated request for an image."""
    known = {
        "image_id": image,
        "name": "image",
        "tag": "t",
        "member_id": OTHER_TENANT,
        "store": "images",
        "task_id": "none",
    }
    case.path_parameters = {name: known[name] for name in case.path_parameters}
    ann.send(case)


OPERATIONS = [
    (method, path, operation)
    for document in (IDENTITY, IMAGES)
    for path, methods in document.raw_schema["paths"].items()
    for method, operation in methods.items()
]


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{each[0]} {each[1]}" for each in OPERATIONS]
)
def test_only_open_operations_answer_without_a_token(
    ann: Ann, method: str, path: str, operation: dict[str, Any]
) -> None:
    url = ann.daemon.url + path.translate({ord("{"): None, ord("}"): None})
    answer = requests.request(method, url, json={}, timeout=LIMIT)
    if operation.get("security") is None:
        assert answer.status_code == 401
    elif method == "post":
        assert answer.status_code == 400
    else:
        assert str(answer.status_code) in operation["responses"]
        document = IMAGES if path.startswith("/image") else IDENTITY
        document[path][method.upper()].validate_response(answer)
