"""What a FastAPI route reads from the request, as its dependency tree declares it.

FastAPI is looked at, never imported: the package works without it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

Dependant: TypeAlias = Any
"""`fastapi.dependencies.models.Dependant`."""


@dataclass(frozen=True, slots=True)
class Input:
    """One part of the request that a dependency tree reads."""

    kind: Literal["header", "cookie", "query", "request"]
    """`"request"`: the whole of it."""
    name: str
    """The header's name in lower case, the cookie's or query parameter's as it is."""
    label: str
    """What declares it, for messages: `"Header() parameter 'x-tenant'"`."""
    credential: bool = False
    """Declared by a security scheme."""
    required: bool = False


def inputs(dependant: Dependant) -> Iterator[Input]:
    """Everything that the dependant and the dependencies below it read, path and body aside."""
    for part in _tree(dependant):
        scheme = _security_scheme(part)
        if scheme is not None:
            # What else its signature takes, mostly the request, serves to read that one credential.
            yield _credential(scheme)
            continue
        yield from _declared(part)


def credential_headers(dependant: Dependant) -> frozenset[str]:
    """The headers, in lower case, that security dependencies in the tree read; only such as a request can have."""
    read = (part.name for part in inputs(dependant) if part.credential and part.kind == "header")
    return frozenset(name for name in read if name.isascii())


def taken(dependant: Dependant) -> Iterator[Dependant]:
    """The dependencies whose value the endpoint takes as a parameter, not those that merely run before it."""
    return (part for part in dependant.dependencies if part.name is not None)


def yields(dependant: Dependant) -> bool:
    """Whether the endpoint is a generator, which FastAPI streams from."""
    call = _plain(dependant.call)
    inner = type(call).__call__
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (call, inner))


def own_inputs(dependant: Dependant) -> Iterator[Input]:
    """What the endpoint itself reads, without its dependencies."""
    return _declared(dependant)


def path_names(dependant: Dependant) -> frozenset[str]:
    """The names of the path parameters declared in the tree."""
    fields = (field for part in _tree(dependant) for field in part.path_params)
    return frozenset(name for name, _ in _names(fields, "path"))


def _declared(part: Dependant) -> Iterator[Input]:
    for parameter in (part.request_param_name, part.http_connection_param_name):
        if parameter is not None:
            yield Input("request", parameter, f"parameter {parameter!r}, the whole request")
    for name, required in _names(part.header_params, "header"):
        yield Input("header", name.lower(), f"Header() parameter {name.lower()!r}", required=required)
    for name, _ in _names(part.cookie_params, "cookie"):
        yield Input("cookie", name, f"Cookie() parameter {name!r}")
    for name, required in _names(part.query_params, "query"):
        yield Input("query", name, f"query parameter {name!r}", required=required)


def _tree(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _tree(part)


def _security_scheme(part: Dependant) -> Any:
    base = getattr(sys.modules.get("fastapi.security.base"), "SecurityBase", None)
    call = _plain(part.call)
    return call if base is not None and isinstance(call, base) else None


def _plain(call: Any) -> Any:
    """What a partial or a decorated callable calls in the end."""
    while isinstance(call, functools.partial):
        call = call.func
    return inspect.unwrap(call) if call is not None else None


def _credential(scheme: Any) -> Input:
    label = f"security dependency {type(scheme).__name__}"
    place = getattr(getattr(scheme, "model", None), "in_", None)
    if place is None:
        # HTTP authentication, OAuth 2, OpenID Connect: whatever the scheme, it comes in this field.
        return Input("header", "authorization", label, credential=True)
    name: str = scheme.model.name
    match str(getattr(place, "value", place)):
        case "cookie":
            return Input("cookie", name, f"{label} {name!r}", credential=True)
        case "query":
            return Input("query", name, f"{label} {name!r}", credential=True)
        case _:
            return Input("header", name.lower(), f"{label} {name.lower()!r}", credential=True)


def _names(fields: Iterable[Any], kind: str) -> Iterator[tuple[str, bool]]:
    """Each name under which the request may bring one of the parameters, and whether it has to."""
    for parameter in fields:
        info = parameter.field_info
        model = _model(info.annotation)
        if model is None:
            yield from _aliases(info, parameter.alias)
            continue
        hyphens = kind == "header" and getattr(info, "convert_underscores", True)
        for name, inner in model.model_fields.items():
            yield from _aliases(inner, name.replace("_", "-") if hyphens else name)


def _aliases(info: Any, name: str) -> Iterator[tuple[str, bool]]:
    alias = info.validation_alias or info.alias or name
    choices = [alias] if isinstance(alias, str) else getattr(alias, "choices", ())
    names = [choice for choice in choices if isinstance(choice, str)] or [name]
    for choice in names:
        yield choice, info.is_required() and len(names) == 1


def _model(annotation: Any) -> Any:
    """The pydantic model that collects several parameters, also as `Model | None`; None for a plain parameter."""
    candidates = [arg for arg in get_args(annotation) if arg is not type(None)] or [annotation]
    return next((one for one in candidates if isinstance(one, type) and hasattr(one, "model_fields")), None)
