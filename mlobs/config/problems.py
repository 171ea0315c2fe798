"""What pydantic found wrong, in the four parts that a reader needs to mend it."""

from __future__ import annotations

import types
from decimal import Decimal
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mlobs.config.shape import SLI_KINDS, File, Objective
from mlobs.errors import Problem, nearest, shown
from mlobs.yamltext import Place, YamlText


def problem_of(document: YamlText, error: ErrorDetails, shape: type[BaseModel] = File) -> Problem:
    """`shape` is that of the whole document: names near a wrong one are looked for in it."""
    place: Place = error["loc"]
    where = document.where(place)
    context = error.get("ctx", {})
    secret = context.get("hidden") or any(
        word in str(place[-1:]) for word in ("token", "password", "secret", "key")
    )
    given = error["input"]
    got = "<hidden>" if secret else str(given) if isinstance(given, Decimal) else shown(given)
    if error["type"] == "mlobs":
        return Problem(where, str(context["expected"]), got, str(context["remedy"]))
    if error["type"] == "extra_forbidden":
        return Problem(
            where, "a known name", repr(place[-1]), nearest(str(place[-1]), names_at(place[:-1], shape))
        )
    if error["type"] == "missing":
        return Problem(where, "a value", "nothing", f"add `{place[-1]}:`")
    return Problem(where, _plainly(error["msg"]), got, "see docs/configuration.md")


def _plainly(text: str) -> str:
    """What pydantic expected, in the words of YAML."""
    text = text.removeprefix("Input should be ")
    for word, plain in (("valid tuple", "list"), ("valid dictionary", "mapping"), ("valid string", "text")):
        text = text.replace(word, plain)
    return text.replace("a text", "text")


def names_at(place: Place, shape: Any = File) -> list[str]:
    """Names that the file's shape knows at `place`."""
    for number, part in enumerate(place):
        if isinstance(shape, type) and issubclass(shape, BaseModel):
            if shape is Objective and part == "sli":
                return list(SLI_KINDS[str(place[-1])].model_fields if number + 2 == len(place) else SLI_KINDS)
            by_name = {field.alias or name: field.annotation for name, field in shape.model_fields.items()}
            shape = _inner(by_name.get(str(part)))
        else:
            shape = _inner(shape)
    if not (isinstance(shape, type) and issubclass(shape, BaseModel)):
        return []
    return [field.alias or name for name, field in shape.model_fields.items()]


def _inner(annotation: Any) -> Any:
    """The model within `tuple[X, ...]`, `dict[str, X]` or `X | None`; its container first."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        return _Items(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return _Items(get_args(annotation)[1])
    return annotation.of if isinstance(annotation, _Items) else annotation


class _Items:
    """A container of parts, one step of a place before its item."""

    def __init__(self, of: Any) -> None:
        self.of = of
