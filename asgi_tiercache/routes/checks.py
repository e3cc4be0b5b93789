"""What is wrong with a policy on a route, found before the first request."""

from __future__ import annotations

import re
from typing import NoReturn

from asgi_tiercache.config import METHODS, Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.routes import fastapi
from asgi_tiercache.routes.fastapi import Input
from asgi_tiercache.routes.tree import Leaf


def check_user(policy: Policy, where: str) -> None:
    """A policy for answers that belong to one user has to say who that is.

    Raises:
        ConfigError: it does not, neither by `user=` nor by a keyed credential.
    """
    keyed = policy.user or policy.cookies or not {"authorization", "cookie"}.isdisjoint(policy.vary_on)
    if policy.per_user and not keyed:
        raise ConfigError("user", f"{where}: the policy is per user; add user=, cookies= or vary_on=['authorization']")


def check_route(leaf: Leaf, policy: Policy, *, named: bool) -> None:
    """The policy against what the route reads, as far as that is declared.

    Args:
        leaf: The route.
        policy: A policy that may apply to it.
        named: Whether somebody named this very route, rather than a prefix of it or all routes.

    Raises:
        ConfigError: the first thing that does not fit.
    """
    _check_tags(leaf, policy)
    _check_fastapi_route(leaf, policy, named=named)
    if leaf.dependant is None:
        return
    if policy.mode == "explicit":
        _check_inputs(leaf, policy)
        _check_query(leaf, policy)
    if policy.dependencies == "always":
        _check_always(leaf, policy)


def unused_mark(leaf: Leaf, policy: Policy) -> str:
    """What to say of an endpoint with `policy`, none of whose methods its route answers."""
    answered = sorted(leaf.methods or ())
    text = f"the policy of route {leaf.template} has no effect: it caches {' and '.join(policy.methods)}, "
    text += f"and the route answers {' and '.join(answered)}"
    possible = [method for method in METHODS if method in answered]
    if not possible:
        return text
    return f"{text}; add methods={possible!r}{' and body=True' if possible != ['GET'] else ''} to it"


def _check_tags(leaf: Leaf, policy: Policy) -> None:
    known = leaf.parameters
    if leaf.dependant is not None:
        read = fastapi.inputs(leaf.dependant)
        known |= fastapi.path_names(leaf.dependant)
        known |= {part.name for part in read if part.kind == "query" and _keeps(policy, part.name)}
    elif policy.query is None:
        return  # Nobody says which query parameters a plain route takes.
    else:
        known |= frozenset(policy.query)
    for template in policy.tags:
        for name in re.findall(r"\{(\w+)\}", template):
            if name not in known:
                raise ConfigError(
                    "tags",
                    f"route {leaf.template}: {name!r} in {template!r} is neither a path parameter nor a query "
                    f"parameter in the key; there are {', '.join(sorted(known)) or 'none'}",
                )


def _check_fastapi_route(leaf: Leaf, policy: Policy, *, named: bool) -> None:
    # A plain route that only falls under a prefix has no dependencies to lose; an app in the dark may have some.
    if policy.dependencies == "always" and leaf.dependant is None and (named or leaf.opaque):
        raise ConfigError(
            "dependencies", f"route {leaf.template}: 'always' needs a FastAPI route, whose dependencies are known"
        )


def _check_inputs(leaf: Leaf, policy: Policy) -> None:
    if policy.dependencies == "always":
        return  # The dependencies see the real request each time; `_check_always` looks at what the handler takes.
    for part in fastapi.inputs(leaf.dependant):
        declared = part.kind in ("header", "cookie") or part.credential
        if declared and not (_keyed(policy, part) or _ignored(policy, part) or _is_optional_condition(part)):
            _refuse(leaf, part, withhold=True)


def _check_query(leaf: Leaf, policy: Policy) -> None:
    for part in fastapi.inputs(leaf.dependant):
        if part.kind == "query" and part.required and not _keeps(policy, part.name):
            raise ConfigError(
                "query",
                f"route {leaf.template}: the required query parameter {part.name!r} would never reach the handler; "
                f"add it to query=, or take it out of drop_query=",
            )


def _check_always(leaf: Leaf, policy: Policy) -> None:
    """The handler runs on the real request, too, so what it takes has to be keyed; to ignore it is not enough."""
    if fastapi.yields(leaf.dependant):
        raise ConfigError("dependencies", f"route {leaf.template}: with 'always' the handler must not be a generator")
    for part in fastapi.own_inputs(leaf.dependant):
        if not _keyed(policy, part):
            _refuse(leaf, part)
    if policy.user is not None or policy.key is not None:
        return
    for dependency in fastapi.taken(leaf.dependant):
        for part in fastapi.inputs(dependency):
            if not _keyed(policy, part):
                _refuse(leaf, part, through=dependency.name)


def _refuse(leaf: Leaf, part: Input, *, withhold: bool = False, through: str = "") -> NoReturn:
    via = f"the handler takes {through!r}, which depends on " if through else ""
    option, remedy = _remedy(part, withhold=withhold)
    if through:
        remedy += "; or add user= or key="
    raise ConfigError(option, f"route {leaf.template}: {via}{part.label}, which is not part of the key; {remedy}")


def _remedy(part: Input, *, withhold: bool) -> tuple[str, str]:
    """The option that keys the input, and what to do in words."""
    match part.kind:
        case "request":
            return "dependencies", "with 'always' the handler must not see the whole request: declare what it reads"
        case "query":
            return "query", f"let query= and drop_query= keep {part.name!r}"
        case "cookie":
            option, ignored = "cookies", "cookie"
        case "header":
            option, ignored = "vary_on", part.name
    remedy = f"add {option}=[{part.name!r}]"
    if part.kind == "cookie" or part.name == "authorization":
        remedy += ", or user="
    if withhold:
        remedy += f", or ignore=[{ignored!r}] to withhold it from the handler"
    return option, remedy


def _keyed(policy: Policy, part: Input) -> bool:
    by_user = policy.user is not None
    match part.kind:
        case "request":
            return False
        case "query":
            return _keeps(policy, part.name)
        case "cookie":
            return by_user or part.name in policy.cookies or "cookie" in policy.vary_on
        case "header":
            return part.name in ("host", *policy.vary_on) or (by_user and _told_by_user(policy, part))


def _told_by_user(policy: Policy, part: Input) -> bool:
    """Whether `user=` stands for the header in the key, and the header still reaches who reads it."""
    return part.name in ("authorization", "cookie") or (part.credential and not policy.strict)


def _ignored(policy: Policy, part: Input) -> bool:
    name = "cookie" if part.kind == "cookie" else part.name
    return part.kind != "query" and name in policy.ignore


def _is_optional_condition(part: Input) -> bool:
    """Whether a handler that looks for the header does well without: a fill has none but the cache's own."""
    return part.kind == "header" and not part.required and part.name.encode() in PARTIAL_AND_CONDITIONAL


def _keeps(policy: Policy, name: str) -> bool:
    """Whether the query parameter is part of the key, and so reaches the handler."""
    if policy.mode != "explicit":
        return True  # There the query counts as it was sent.
    dropped = any(name.startswith(drop[:-1]) if drop.endswith("*") else name == drop for drop in policy.drop_query)
    return not dropped and (policy.query is None or name in policy.query)
