"""May a response be stored, for how long, and what of it (RFC 9111, section 3; the order of the policies)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from asgi_tiercache.config import Policy
from asgi_tiercache.http.directives import Directives, targeted
from asgi_tiercache.http.etag import entity_tag
from asgi_tiercache.http.fields import parse_http_date, storable_headers, values
from asgi_tiercache.http.freshness import (
    HEURISTICALLY_CACHEABLE,
    age_value,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
)
from asgi_tiercache.http.vary import vary_names
from asgi_tiercache.types import Header

T = TypeVar("T")

Reason: TypeAlias = Literal[
    "no-store", "private", "no-cache", "partial", "status", "set-cookie", "vary", "credential", "no-freshness", "ttl"
]

DEFAULT_RETENTION = 3_600.0
"""Seconds that a response is kept past its freshness in the HTTP modes where the policy does not say."""

# RFC 9110, section 15. 304 is not here: it describes another response.
_UNDERSTOOD = frozenset(
    {*range(200, 207), *range(300, 304), 305, 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506)}
)
# RFC 6585, sections 3 to 6: they speak of one client or of the network between, and no cache may store them.
_OF_ONE_CLIENT = frozenset({428, 429, 431, 511})

# They speak of the request as it was sent, its header fields among others, which no URI tells: stored, they would keep
# everybody from what one client has asked for in a wrong way. Only the http mode, which is stricter than the RFC.
OF_ONE_REQUEST = frozenset({400, 406, 408, 411, 412, 413, 415, 416, 417, 421, 422, 425, 426})

_CONTENT_RANGE = re.compile(rb"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<length>[0-9]{1,18}|\*)", re.I)


@dataclass(frozen=True, slots=True)
class Store:
    """The response may be stored.

    Attributes:
        lifetime: Its `freshness_lifetime` in seconds; 0 where it must be validated at each use.
        age: Its age on arrival in seconds. In the HTTP modes it may have reached `lifetime`: the response is then
            kept to be validated, or to be used stale.
        shared: The response says itself that it may answer requests with credentials: `public`, `s-maxage`, a targeted
            field, or in rfc9111 mode `must-revalidate`.
        vary: The request header fields that choose it: lower case, sorted, each once.
        must_revalidate: It must never be used stale (RFC 9111, section 4.2.4).
        stale_while_revalidate: Seconds past its freshness for which it may be used while it is validated (RFC 5861,
            section 3).
        stale_if_error: Seconds past its freshness for which it may stand in for an error (RFC 5861, section 4, and
            RFC 9111, section 4.3.3).
        retention: Seconds past its freshness for which it is of any use.
        without: The names, lower case, of the fields that must not be stored: those that `private="..."` and
            `no-cache="..."` list (RFC 9111, section 3.1).
        partial: It is a 206 with one range, to be stored as an incomplete 200 (RFC 9111, section 3.3).
    """

    lifetime: float
    age: float
    shared: bool
    vary: tuple[str, ...]
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    retention: float = 0.0
    without: frozenset[bytes] = frozenset()
    partial: bool = False


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
    response_delay: float = 0.0,
    now: float,
) -> Store | Refuse:
    """Whether a response to a GET may be stored under `policy`, how fresh it is, and what it is good for after that.

    1. A valid targeted field takes the place of `Cache-Control` and `Expires` (RFC 9213).
    2. The first obstacle in the table below refuses.
    3. The lifetime is `set_ttl`, else the policy's for this status, else what the response states, else, in
       rfc9111 mode, a heuristic. Only where it comes from the response does the age on arrival count. Under `no-cache`
       it is 0.
    4. What is not fresh on arrival is stored in the HTTP modes if it can be validated or used stale.

    Args:
        policy: The policy of the route. In every mode, the lifetimes that we give (`set_ttl`, `status_ttl`, `ttl`)
            go to the status codes it stores only, so that an error is not kept because its route is.
        status: The status code.
        headers: The response's field lines, names in any case, as the handler sent them: an `ETag` that it does not
            know would seem to make the response one that can be validated.
        credentialed: The request carried credentials that are not part of the key. What counts as one is the caller's
            decision: any in http mode, `Authorization` in rfc9111 mode. Without effect in explicit mode, where such
            requests pass by.
        request_no_store: The request said `no-store`, and the policy heeds requests.
        set_ttl: Seconds that the handler itself asked for.
        response_delay: Seconds from the request to the response. They count towards the age (RFC 9111, section 4.2.3)
            in rfc9111 mode; in the others, where a handler makes the response and no network is between, only if an
            `Age` tells that it came out of another cache.
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
        set_ttl=set_ttl,
        response_delay=response_delay,
        now=now,
    )
    for reason, stands in _OBSTACLES:
        if stands(case):
            return Refuse(reason)
    return _judge_freshness(case)


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
    set_ttl: float | None
    response_delay: float
    now: float

    @property
    def explicit(self) -> bool:
        return self.policy.mode == "explicit"

    @property
    def shared(self) -> bool:
        if self.policy.mode == "rfc9111" and self.directives.grants("must-revalidate"):
            return True  # RFC 9111, section 3.5
        return self.targeted or self.directives.grants("public") or self.directives.grants("s-maxage")

    @property
    def without(self) -> frozenset[bytes]:
        limited = (self.directives.fields(name) or () for name in ("no-cache", "private"))
        return frozenset(name.encode("ascii") for names in limited for name in names)

    def forbids(self, name: str) -> bool:
        """Whether `no-cache` or `private` stands for the whole response; to explicit policies it always does."""
        return name in self.directives and (self.explicit or self.directives.fields(name) is None)


# ---- obstacles ----


def _forbids_storing(case: _Case) -> bool:
    if case.request_no_store or "no-store" not in case.directives:
        return case.request_no_store
    # Section 5.2.2.3: no-store stands beside must-understand for the caches that do not know the latter.
    overridden = case.directives.grants("must-understand") and case.status in _UNDERSTOOD
    return case.explicit or not overridden


def _forbids_reuse(case: _Case) -> bool:
    # Section 5.2.2.4: it may be stored to be validated; what cannot be validated would never be used.
    return case.forbids("no-cache") and (case.explicit or not _can_be_validated(case))


def _wrong_part(case: _Case) -> bool:
    # Section 3.3: only for the unit and the form of range that is understood.
    return case.status == 206 and (case.explicit or not _is_one_range(case.headers))


def _is_one_range(headers: Sequence[Header]) -> bool:
    """Whether a 206 holds one range of bytes (RFC 9110, section 14.4) rather than several (section 15.3.7.2)."""
    lines = values(headers, b"content-range")
    match = _CONTENT_RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or any(value.lower().startswith(b"multipart/") for value in values(headers, b"content-type")):
        return False
    first, last = int(match["first"]), int(match["last"])
    return first <= last and (match["length"] == b"*" or last < int(match["length"]))


def _wrong_status(case: _Case) -> bool:
    policy, status = case.policy, case.status
    if case.explicit or status in policy.status_ttl:
        return not policy.stores(status)
    if "must-understand" in case.directives and status not in _UNDERSTOOD:
        return True
    if policy.mode == "http" and status in OF_ONE_REQUEST:
        return True
    return not 200 <= status <= 599 or status == 304 or status in _OF_ONE_CLIENT


def _sets_cookie(case: _Case) -> bool:
    # RFC 9111, section 7.3: no obstacle to the exact shared cache; the other modes will not hand one user's cookie out.
    if case.policy.mode == "rfc9111" or not values(case.headers, b"set-cookie"):
        return False
    return b"set-cookie" not in case.without


def _credential_forbids(case: _Case) -> bool:
    if not case.credentialed or case.explicit:
        return False
    if case.policy.mode == "http":
        return not case.shared
    # RFC 9111, section 3.5; a targeted field has the same directives with the same meaning (RFC 9213, section 2.2).
    return not any(case.directives.grants(name) for name in ("public", "s-maxage", "must-revalidate"))


# In this order.
_OBSTACLES: tuple[tuple[Reason, Callable[[_Case], bool]], ...] = (
    ("no-store", _forbids_storing),
    ("private", lambda case: case.forbids("private")),
    ("no-cache", _forbids_reuse),
    ("partial", _wrong_part),
    ("status", _wrong_status),
    ("set-cookie", _sets_cookie),
    ("vary", lambda case: case.vary is None),
    ("credential", _credential_forbids),
)


# ---- freshness ----


def _judge_freshness(case: _Case) -> Store | Refuse:
    own = _own_lifetime(case)
    lifetime = _stated_lifetime(case) if own is None else own
    if lifetime is None:
        return Refuse("no-freshness")
    if own is not None and own <= 0:
        return Refuse("ttl")  # the handler's own word: not to be stored
    if case.forbids("no-cache"):
        lifetime = 0.0
    age = _age(case) if own is None else 0.0
    store = _store(case, lifetime, age, must_revalidate=_must_revalidate(case, stated=own is None))
    # What would have had its time before it came is of no use; explicit policies store what is fresh, nothing else.
    usable_for = lifetime if case.explicit else lifetime + store.retention
    return store if usable_for > age else Refuse("ttl")


def _own_lifetime(case: _Case) -> float | None:
    if not case.policy.stores(case.status):
        return None
    return case.policy.ttl_for(case.status) if case.set_ttl is None else case.set_ttl


def _stated_lifetime(case: _Case) -> float | None:
    lifetime = explicit_lifetime(case.headers, case.directives, targeted=case.targeted, now=case.now)
    return _unstated_lifetime(case) if lifetime is None else lifetime


def _unstated_lifetime(case: _Case) -> float | None:
    """The lifetime of a response that states none (section 4.2.2); None if it is not stored at all.

    Section 3 lets it be stored for its status or for `public`. It is then stale unless a heuristic says otherwise,
    so storing it makes sense if it can be validated. The http mode wants it to say that itself, by `no-cache`.
    """
    heuristically_cacheable = case.status in HEURISTICALLY_CACHEABLE or case.directives.grants("public")
    if not heuristically_cacheable:
        return None
    if case.policy.mode == "rfc9111":
        heuristic = heuristic_lifetime(case.headers, now=case.now)
        if heuristic is not None:
            return heuristic
    elif not case.forbids("no-cache"):
        return None
    return 0.0 if _can_be_validated(case) else None


def _age(case: _Case) -> float:
    through_a_cache = age_value(case.headers) is not None
    counts = case.policy.mode == "rfc9111" or through_a_cache
    return initial_age(case.headers, now=case.now, response_delay=case.response_delay if counts else 0.0)


# ---- past freshness ----


def _must_revalidate(case: _Case, *, stated: bool) -> bool:
    """Whether an in-protocol directive forbids every stale use (section 4.2.4).

    `s-maxage` does where it is applicable (section 5.2.2.10): if the lifetime is its own.
    """
    if "must-revalidate" in case.directives or "proxy-revalidate" in case.directives:
        return True
    return not case.explicit and (case.forbids("no-cache") or (stated and "s-maxage" in case.directives))


def _store(case: _Case, lifetime: float, age: float, *, must_revalidate: bool) -> Store:
    policy = case.policy
    while_revalidate = (
        0.0 if must_revalidate else _permitted(case, "stale-while-revalidate", policy.stale_while_revalidate)
    )
    if_error = 0.0 if must_revalidate else _permitted(case, "stale-if-error", policy.stale_if_error or None)
    kept = _kept(case, stale=age >= lifetime, must_revalidate=must_revalidate)
    if kept:
        kept += max(0.0, age - lifetime)  # what arrives stale is kept as long as what has just become so
    retention = float(max(kept, while_revalidate, if_error or 0))
    if if_error is None:
        # Section 4.3.3: a handler that fails is an origin that does not answer, and section 4.2.4 has no limit then.
        # An explicit policy allows it only where the response says so; no error stands in for another unasked.
        if_error = 0 if case.explicit or case.status >= 500 else retention
    return Store(
        lifetime=lifetime,
        age=age,
        shared=case.shared,
        vary=case.vary or (),
        must_revalidate=must_revalidate,
        stale_while_revalidate=float(while_revalidate),
        stale_if_error=float(if_error),
        retention=retention,
        without=case.without,
        partial=case.status == 206,
    )


def _permitted(case: _Case, name: str, own: T) -> float | T:
    """The seconds that the response permits with the directive `name`; where it says nothing, the policy's own."""
    seconds = case.directives.seconds(name)
    return own if seconds is None else float(seconds)


def _kept(case: _Case, *, stale: bool, must_revalidate: bool) -> float:
    """Seconds for which the policy keeps the response past its freshness; 0 where little could be done with it.

    What arrives stale and cannot be validated would be kept for the next error alone, in place of what might be used.
    """
    validated = _can_be_validated(case)
    if (must_revalidate or case.status >= 500) and not validated:
        return 0.0
    if case.policy.retention is not None:
        return case.policy.retention
    return 0.0 if case.explicit or (stale and not validated) else DEFAULT_RETENTION


def _can_be_validated(case: _Case) -> bool:
    """Whether what will be stored has a validator to send (RFC 9110, section 8.8), one that its grammar has."""
    stored = storable_headers(case.headers, case.without)
    if entity_tag(stored) is not None:
        return True
    dates = values(stored, b"last-modified")
    return len(dates) == 1 and parse_http_date(dates[0], now=case.now) is not None
