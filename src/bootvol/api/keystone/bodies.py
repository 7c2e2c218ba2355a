"""Request bodies of both versions of the identity API."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from twisted.web.iweb import IRequest

from bootvol.api.http import read_json
from bootvol.api.operations import Operation
from bootvol.errors import InvalidRequest

#: An id or a name.
Text = Annotated[str, Field(max_length=255)]
#: A password, a secret key or a token.
Secret = Annotated[str, Field(max_length=4096)]


class LoginBody(BaseModel):
    """The base of the models: null means absent, and unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


#: The message for a client that names several ways to log in, or none.
ONE_WAY: Final = "give one way to log in that is known here"


def read_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Validate the body of a request.

    :raises bootvol.errors.InvalidRequest: if the body is not JSON or does not fit the model.  The
        message repeats no values of the body.
    """
    try:
        return model.model_validate(read_json(request))
    except ValidationError as error:
        detail = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        text = detail["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"Invalid input for {where or 'the body'}: {text}") from None
