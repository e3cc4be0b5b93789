"""May a response be stored, and for how long (RFC 9111, section 3; the order of the policies)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from asgi_tiercache.config import Policy
from asgi_tiercache.http.directives import Directives, targeted
from asgi_tiercache.http.fields import values
from asgi_tiercache.http.freshness import (
    HEURISTICALLY_CACHEABLE,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
)
from asgi_tiercache.http.vary import vary_names
from asgi_tiercache.types import Header

Reason: TypeAlias = Literal[
    "no-store", "private", "no-cache", "partial", "status", "set-cookie", "vary", "credential", "no-freshness", "ttl"
]

# RFC 9110, section 15. 206 and 304 are not here: understanding them means combining responses.
_UNDERSTOOD = frozenset(
    {*range(200, 206), *range(300, 304), 305, 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506)}
)


@dataclass(frozen=True, slots=True)
class Store:
    """The response may be stored.

    Attributes:
        lifetime: Its `freshness_lifetime` in seconds.
        age: Its age on arrival in seconds, below `lifetime`.
        shared: The response says itself that it is meant for a shared cache: `public`, `s-maxage` or a targeted field.
        vary: The request header fields that choose it: lower case, sorted, each once.
    """

    lifetime: float
    age: float
    shared: bool
    vary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The response may not be stored; `reason` is a short word for logs and `Cache-Status`."""

    reason: Reason


def judge_response(
    policy: Policy,
    status: int,
    headers: Sequence[Header],
    *,
    credentialed: bool,
    request_no_store: bool = False,
    set_ttl: float | None = None,
    now: float,
) -> Store | Refuse:
    """Whether a response to a GET may be stored under `policy`, and how fresh it is.

    1. A valid targeted field takes the place of `Cache-Control` and `Expires` (RFC 9213).
    2. The first obstacle in the table below refuses.
    3. The lifetime is `set_ttl`, else the policy's for this status, else what the response states, else, in
       rfc9111 mode, a heuristic. Only where it comes from the response does the age on arrival count.

    Args:
        policy: The policy of the route. In every mode, the lifetimes that we give (`set_ttl`, `status_ttl`, `ttl`)
            go to the status codes it stores only, so that an error is not kept because its route is.
        status: The status code.
        headers: The response's field lines, names in any case.
        credentialed: The request carried credentials that are not part of the key. What counts as one is the caller's
            decision: any in http mode, `Authorization` in rfc9111 mode. Without effect in explicit mode, where such
            requests pass by.
        request_no_store: The request said `no-store`, and the policy heeds requests.
        set_ttl: Seconds that the handler itself asked for.
        now: Seconds since 1970 at which the response arrived.
    """
    aimed_at_us = targeted(headers)
    case = _Case(
        policy=policy,
        status=status,
        headers=headers,
        directives=Directives.parse(headers) if aimed_at_us is None else aimed_at_us,
        targeted=aimed_at_us is not None,
        vary=vary_names(headers),
        credentialed=credentialed,
        request_no_store=request_no_store,
    )
    for reason, stands in _OBSTACLES:
        if stands(case):
            return Refuse(reason)
    return _judge_freshness(case, set_ttl, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    policy: Policy
    status: int
    headers: Sequence[Header]
    directives: Directives
    targeted: bool
    vary: tuple[str, ...] | None
    credentialed: bool
    request_no_store: bool

    @property
    def shared(self) -> bool:
        return self.targeted or "public" in self.directives or "s-maxage" in self.directives


def _forbids_storing(case: _Case) -> bool:
    return case.request_no_store or "no-store" in case.directives


def _wrong_status(case: _Case) -> bool:
    policy, status = case.policy, case.status
    if policy.mode == "explicit" or status in policy.status_ttl:
        return not policy.stores(status)
    if "must-understand" in case.directives and status not in _UNDERSTOOD:
        return True
    return not 200 <= status <= 599 or status == 304


def _sets_cookie(case: _Case) -> bool:
    # RFC 9111, section 7.3: no obstacle to the exact shared cache; the other modes will not hand one user's cookie out.
    return case.policy.mode != "rfc9111" and bool(values(case.headers, b"set-cookie"))


def _credential_forbids(case: _Case) -> bool:
    if not case.credentialed or case.policy.mode == "explicit":
        return False
    if case.policy.mode == "http":
        return not case.shared
    # RFC 9111, section 3.5
    return not any(name in case.directives for name in ("public", "s-maxage", "must-revalidate"))


# In this order; `private` and `no-cache` count with field names, too (see Directives.fields).
_OBSTACLES: tuple[tuple[Reason, Callable[[_Case], bool]], ...] = (
    ("no-store", _forbids_storing),
    ("private", lambda case: "private" in case.directives),
    ("no-cache", lambda case: "no-cache" in case.directives),
    ("partial", lambda case: case.status == 206),
    ("status", _wrong_status),
    ("set-cookie", _sets_cookie),
    ("vary", lambda case: case.vary is None),
    ("credential", _credential_forbids),
)


def _judge_freshness(case: _Case, set_ttl: float | None, now: float) -> Store | Refuse:
    lifetime, age = _own_lifetime(case, set_ttl), 0.0
    if lifetime is None:
        lifetime, age = _stated_lifetime(case, now), initial_age(case.headers, now=now)
    if lifetime is None:
        return Refuse("no-freshness")
    if lifetime <= age:
        return Refuse("ttl")
    return Store(lifetime=lifetime, age=age, shared=case.shared, vary=case.vary or ())


def _own_lifetime(case: _Case, set_ttl: float | None) -> float | None:
    if not case.policy.stores(case.status):
        return None
    return case.policy.ttl_for(case.status) if set_ttl is None else set_ttl


def _stated_lifetime(case: _Case, now: float) -> float | None:
    lifetime = explicit_lifetime(case.headers, case.directives, targeted=case.targeted, now=now)
    if lifetime is None and case.policy.mode == "rfc9111" and _allows_heuristics(case):
        return heuristic_lifetime(case.headers, now=now)
    return lifetime


def _allows_heuristics(case: _Case) -> bool:
    # RFC 9111, section 4.2.2
    return case.status in HEURISTICALLY_CACHEABLE or "public" in case.directives
