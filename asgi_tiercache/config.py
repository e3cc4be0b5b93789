"""Policies, regions and presets: what a user decides, checked when it is written down."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from asgi_tiercache.errors import ConfigError, TierCacheError

Eviction: TypeAlias = Literal["lru", "lfu", "ttl"]
"""Which entry a full region gives up: least recently used, least frequently used, earliest to expire."""
Mode: TypeAlias = Literal["explicit", "http", "rfc9111"]
Names: TypeAlias = Sequence[str]
"""Texts, in any sequence; one text stands for a sequence of one."""
Source: TypeAlias = Callable[[MutableMapping[str, Any]], str | bytes | int | None]
"""A callable that takes an ASGI scope and returns a part of the key."""

MAX_TAG_BYTES = 256
LONGEST_LIFETIME = 31 * 86_400
"""Seconds that an entry lives at the most, whatever its policy or its response says: what the log has to remember."""
MAX_SETTLE = 86_400
"""Seconds by which an invalidation may be dated ahead."""
MAX_KEYS = 1_000_000
"""New keys of a route that are stored in one window, unless its policy says otherwise."""
LOCK_WAIT = 5.0
"""Seconds that a worker waits for another that computes the same, unless its policy says otherwise."""
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
METHODS = ("GET", "POST", "QUERY")
"""The methods whose responses a policy can have stored."""
_SWITCHES = ("strict", "body", "compress", "etag", "hash_path", "per_user", "request_directives", "verify")
_CHOICES = {
    "dependencies": ("miss", "always"),
    "unverified": ("serve", "bypass"),
    "mode": ("explicit", "http", "rfc9111"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of L1 with bounds and an eviction order of its own.

    Args:
        name: As it appears in statistics; policies that name the same region share it.
        max_entries: How many entries it holds at the most.
        max_bytes: How many bytes of bodies, headers, keys and tags it holds at the most.
        eviction: `"lru"`, `"lfu"`, or `"ttl"` for the earliest expiry first.

    Raises:
        ConfigError: a bound is not positive, or the eviction order is unknown.
    """

    name: str = "default"
    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    eviction: Eviction = "lru"

    def __post_init__(self) -> None:
        for bound in ("max_entries", "max_bytes"):
            if not isinstance(getattr(self, bound), int) or getattr(self, bound) < 1:
                raise ConfigError(bound, f"must be a number from 1 on, not {getattr(self, bound)!r}")
        if self.eviction not in ("lru", "lfu", "ttl"):
            raise ConfigError("eviction", f"must be 'lru', 'lfu' or 'ttl', not {self.eviction!r}")


DEFAULT_REGION = Region()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the responses of a route, or the values of a function, are keyed, stored and reused.

    Durations are seconds, sizes are bytes, field names count in any case. One string stands for a sequence of one.

    Args:
        methods: The methods that are looked up: `"GET"`, which HEAD goes with, `"POST"`, `"QUERY"`. The last two need
            `body=True`; a POST under such a policy counts as a question, which changes nothing.
        ttl: Freshness of what is stored. None leaves it to the response; under an explicit policy that takes
            `status_ttl`. At most 31 days count.
        l1_ttl: Bounds the copy in this process; None: it stays as long as the response is kept.
        status_ttl: Freshness by status code, before `ttl`; each status named here is stored. 0: never stored.
        statuses: The status codes that are stored under an explicit policy; in HTTP mode those that `ttl` counts for.
        retention: How long a response is kept past its freshness, to be validated or, in HTTP mode, to stand in for a
            failing handler; the stale directives of the response extend it, and so do those of the policy below. None:
            an hour in HTTP mode for what can be validated or used stale, 0 under an explicit policy.
        region: The part of L1 that holds the entries.
        tags: Templates such as `"video:{video_id}"`, filled from path and query parameters or bound arguments.
        query: The only query parameters that count, for the key and for the handler. In HTTP mode all do.
        drop_query: Query parameters that do not count; `"utm_*"` drops every name with that beginning. Likewise.
        vary_on: Request headers that are part of the key.
        cookies: Cookies that are part of the key; the handler receives no others.
        user: Takes the ASGI scope, returns who is asking. Part of the key; covers every credential. Where it
            raises or returns None the request passes by uncached.
        ignore: Credentials (`"cookie"`, `"authorization"`, `"session"`, `"user"`, `"auth"`) or headers that the
            response does not depend on: withheld from the handler. For functions: arguments left out of the key.
        key: Takes the ASGI scope, returns a further part of the key.
        body: The request body is part of the key; without it a GET with a body passes by.
        version: Part of the key; change it to start afresh.
        hash_path: The path appears in keys, logs and statistics only as a hash.
        strict: Withhold from the handler every request header that is neither keyed nor merely negotiates or traces.
        dependencies: `"always"` runs a FastAPI route's dependencies on hits, too, and skips only the handler.
        downstream: What the client is told in `Cache-Control` with a response that is stored: `"keep"` what the
            handler said, `"remove"` it, or a value to send instead. In HTTP mode, only with `"keep"` is what is stale
            validated.
        max_body: Larger responses are passed on and not stored.
        request_directives: Whether `Cache-Control` and `Pragma` in requests count (HTTP mode only); False: no client
            forces a miss.
        max_keys: How many different keys of the route or function this process stores in the time that one of them
            lives; from 10,000 on, or from half of them, only such as were asked for before. None: all, always.
        files: Files up to this size, sent by path (`http.response.pathsend`), are read and stored; 0: none are.
        compress: Deflate bodies at rest in lower tiers.
        etag: Generate an `ETag` from the content of a 200 where the handler gives none; from the second answer on, as
            the first streams.
        per_user: A route with this policy needs `user=`; without it the policy is refused at start.
        verify: Ask the log of invalidations on every read: no lag, at the price of a question to Redis each time, and
            of no hits while it cannot be asked.
        unverified: What to do while Redis cannot confirm that nothing was invalidated: `"serve"` for a while, or
            `"bypass"` the cache.
        stale_while_revalidate: How long past its freshness a response is served at once while it is made anew in the
            background (RFC 5861, section 3), where it does not say so itself. 0: not at all.
        stale_if_error: How long past its freshness it stands in for one that fails or comes too late (RFC 5861,
            section 4), where it does not say so itself. 0: not at all, but in HTTP mode for as long as it is kept.
        soft_timeout: How long whoever waits does so before what may stand in is the answer; the handler goes on, and
            what it returns is stored.
        hard_timeout: How long a handler may take until its response begins, or a function until it returns: then the
            stale response, else 504; from a function `TimeoutError`. Requests that pass by have no limit.
        finish: Whether what is being made is finished though nobody waits for it any more; False: it is cancelled,
            unless it is made in the background, or `soft_timeout` was over for somebody.
        lock: Whether one worker of all computes while the others wait for it; takes Redis. Nothing but cost depends
            on it.
        lock_wait: How long to wait for another worker, in all; then a stale response, else the handler.
        early_refresh: `beta` of early refresh: 1 begins to renew about 2.5 fill times before the end of a lifetime, 2
            about five; it takes a request. 0: not before the end.
        jitter: The part of a lifetime, below 1, that chance may take off, so that what was stored together does not
            expire together.
        refresh_ahead: Whether what will probably be asked for again is renewed before that happens, without a request.
            Not in HTTP mode.
        negative: For functions: which exceptions are stored like values, and for how long: `{LookupError: 10}`. Those
            of subclasses are, too, unless these are named themselves; with 0 they are not.
        mode: Set by `Policy.http()` and `Policy.rfc9111()`.

    Raises:
        ConfigError: an option is wrong; the message names it.
    """

    methods: Names = ("GET",)
    ttl: float | None = None
    l1_ttl: float | None = None
    status_ttl: Mapping[int, float] = field(default_factory=dict)
    statuses: Collection[int] = (200, 203, 204, 301, 308)
    retention: float | None = None
    region: Region = DEFAULT_REGION
    tags: Names = ()
    query: Names | None = None
    drop_query: Names = ()
    vary_on: Names = ()
    cookies: Names = ()
    user: Source | None = None
    ignore: Names = ()
    key: Source | None = None
    body: bool = False
    version: str = ""
    hash_path: bool = False
    strict: bool = True
    dependencies: Literal["miss", "always"] = "miss"
    downstream: str = "keep"
    max_body: int = 1024 * 1024
    max_keys: int | None = MAX_KEYS
    request_directives: bool = True
    files: int = 0
    compress: bool = False
    etag: bool = False
    per_user: bool = False
    verify: bool = False
    unverified: Literal["serve", "bypass"] = "serve"
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    finish: bool = True
    lock: bool = True
    lock_wait: float = LOCK_WAIT
    early_refresh: float = 0.0
    jitter: float = 0.0
    refresh_ahead: bool = False
    negative: Mapping[type[Exception], float] = field(default_factory=dict)
    mode: Mode = "explicit"

    def __post_init__(self) -> None:
        self._normalise()
        self._check_numbers()
        self._check_names()
        self._check_kinds()
        self._check_query()
        self._check_methods()
        _check_ageing(self)

    @classmethod
    def http(cls, **options: Any) -> Policy:
        """What routes get that nobody named: stored only where the response itself says so.

        RFC 9111 without heuristics, and stricter in two points: a request with any credential, cookies included, only
        meets responses that say `public`, `s-maxage` or carry a targeted field, and what sets a cookie is not stored.
        """
        return cls(**{"mode": "http", "strict": False, **options})

    @classmethod
    def rfc9111(cls, **options: Any) -> Policy:
        """The shared cache of RFC 9111 as it stands: heuristic freshness included, cookies no obstacle.

        A response with `Set-Cookie` is stored, too, and hands the cookie to everybody (section 7.3).
        """
        return cls(**{"mode": "rfc9111", "strict": False, **options})

    def but(self, **changes: Any) -> Policy:
        """This policy with some options changed: `STATIC.but(tags=["config"])`."""
        try:
            return dataclasses.replace(self, **changes)
        except TypeError as error:
            raise ConfigError("policy", str(error)) from None

    def ttl_for(self, status: int) -> float | None:
        """The freshness lifetime that the policy gives a response with `status`; None where it gives none."""
        return self.status_ttl.get(status, self.ttl)

    def caches(self, method: str) -> bool:
        """Whether requests with `method` are looked up; HEAD goes with GET."""
        return ("GET" if method == "HEAD" else method) in self.methods

    def stores(self, status: int) -> bool:
        """Whether an explicit policy lets a response with `status` be stored."""
        if status in self.status_ttl:
            return self.status_ttl[status] > 0
        return status in self.statuses

    def _normalise(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("tags", "drop_query", "cookies"):
            put(name, check_texts(name, getattr(self, name)))
        for name in ("vary_on", "ignore"):
            put(name, tuple(dict.fromkeys(text.lower() for text in check_texts(name, getattr(self, name)))))
        put("methods", tuple(dict.fromkeys(method.upper() for method in check_texts("methods", self.methods))))
        if self.query is not None:
            put("query", check_texts("query", self.query))
        if not isinstance(self.status_ttl, Mapping):
            raise ConfigError("status_ttl", f"must map status codes to seconds, not {self.status_ttl!r}")
        put("status_ttl", MappingProxyType(dict(self.status_ttl)))
        if not isinstance(self.statuses, Collection):
            raise ConfigError("statuses", f"must hold status codes, not {self.statuses!r}")
        put("statuses", tuple(self.statuses))
        if not isinstance(self.negative, Mapping):
            raise ConfigError("negative", f"must map exceptions to seconds, not {self.negative!r}")
        put("negative", MappingProxyType(dict(self.negative)))

    def _check_numbers(self) -> None:
        if self.ttl is None and self.mode == "explicit" and not self.status_ttl:
            raise ConfigError("ttl", "an explicit policy needs one; Policy.http() leaves it to the response")
        if self.ttl is not None:
            check_seconds("ttl", self.ttl)
        if self.l1_ttl is not None:
            check_seconds("l1_ttl", self.l1_ttl)
        if self.retention is not None:
            check_seconds("retention", self.retention, zero=True)
        for status, seconds in self.status_ttl.items():
            _check_status("status_ttl", status)
            check_seconds(f"status_ttl[{status}]", seconds, zero=True)
        for status in self.statuses:
            _check_status("statuses", status)
        for name in ("max_body", "files"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ConfigError(name, f"must be a number of bytes, not {getattr(self, name)!r}")
        if self.max_keys is not None and (
            not isinstance(self.max_keys, int) or isinstance(self.max_keys, bool) or self.max_keys < 1
        ):
            raise ConfigError("max_keys", f"must be a number from 1 on, or None, not {self.max_keys!r}")

    def _check_names(self) -> None:
        for template in self.tags:
            _check_template("tags", template)
        for name in self.vary_on:
            if not _TOKEN.fullmatch(name):
                raise ConfigError("vary_on", f"{name!r} is not a header name")
        for name in self.ignore:
            if name in self.vary_on or (name == "cookie" and self.cookies):
                raise ConfigError("ignore", f"{name!r} is part of the key, so it cannot be ignored")
        if not isinstance(self.version, str):
            raise ConfigError("version", f"must be a text, not {self.version!r}")
        if not isinstance(self.downstream, str) or re.search(r"[^\x20-\x7e]", self.downstream):
            raise ConfigError("downstream", f"must be printable ASCII, not {self.downstream!r}")

    def _check_query(self) -> None:
        for option in ("query", "drop_query"):
            if self.mode != "explicit" and getattr(self, option):
                raise ConfigError(option, "needs an explicit policy: to HTTP each URI is another resource, as sent")
        for name in self.drop_query:
            if self.query is not None and name in self.query:
                raise ConfigError("drop_query", f"{name!r} is in query= as well")

    def _check_methods(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                aside = "; HEAD goes with GET" if method == "HEAD" else ""
                raise ConfigError("methods", f"must be among {', '.join(METHODS)}, not {method!r}{aside}")
            if method != "GET" and not self.body:
                raise ConfigError("methods", f"{method} needs body=True: what is asked for stands in the body")
        if not self.methods:
            raise ConfigError("methods", "must name one at least; None in place of a policy means never cached")

    def _check_kinds(self) -> None:
        for option in ("user", "key"):
            value = getattr(self, option)
            if value is not None and not callable(value):
                raise ConfigError(option, f"must be callable, not {value!r}")
            if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
                raise ConfigError(option, f"must be a plain function, which {value!r} is not")
        for option in _SWITCHES:
            if not isinstance(getattr(self, option), bool):
                raise ConfigError(option, f"must be True or False, not {getattr(self, option)!r}")
        for option, allowed in _CHOICES.items():
            if getattr(self, option) not in allowed:
                raise ConfigError(option, f"must be one of {', '.join(allowed)}, not {getattr(self, option)!r}")
        if not isinstance(self.region, Region):
            raise ConfigError("region", f"must be a Region, not {self.region!r}")


def _check_ageing(policy: Policy) -> None:
    """What a policy says of growing old: each option by itself, then what does not go together."""
    for option in ("stale_while_revalidate", "stale_if_error"):
        check_seconds(option, getattr(policy, option), zero=True)
    for option in ("soft_timeout", "hard_timeout"):
        if getattr(policy, option) is not None:
            check_seconds(option, getattr(policy, option))
    check_seconds("lock_wait", policy.lock_wait)
    for option in ("early_refresh", "jitter"):
        _check_factor(option, getattr(policy, option))
    if policy.jitter >= 1:
        raise ConfigError("jitter", f"must be below 1, or nothing would be left of a lifetime; not {policy.jitter!r}")
    for option in ("finish", "lock", "refresh_ahead"):
        if not isinstance(getattr(policy, option), bool):
            raise ConfigError(option, f"must be True or False, not {getattr(policy, option)!r}")
    for kind, seconds in policy.negative.items():
        _check_exception(kind)
        check_seconds(f"negative[{kind.__qualname__}]", seconds, zero=True)
    _check_timeouts(policy)
    _check_renewals(policy)


def _check_timeouts(policy: Policy) -> None:
    soft, hard = policy.soft_timeout, policy.hard_timeout
    if soft is not None and hard is not None and soft >= hard:
        raise ConfigError("soft_timeout", f"must be below hard_timeout, {hard!r}, not {soft!r}")
    if soft is not None and policy.mode == "explicit" and not policy.stale_if_error:
        raise ConfigError("soft_timeout", "needs stale_if_error=: nothing else may be served in time")
    if not policy.lock and policy.lock_wait != LOCK_WAIT:
        raise ConfigError("lock_wait", "says how long to wait for another worker, which lock=False does not do")


def _check_renewals(policy: Policy) -> None:
    """Work in the background never runs with what only one request says of who is asking."""
    if policy.dependencies == "always":
        for option in ("stale_while_revalidate", "early_refresh", "refresh_ahead"):
            if getattr(policy, option):
                raise ConfigError(option, "renews without a request, on which dependencies='always' depends")
    if policy.mode != "explicit":
        if policy.refresh_ahead:
            raise ConfigError("refresh_ahead", "needs an explicit policy: here a handler sees more than the key holds")
        if policy.negative:
            raise ConfigError("negative", "is about functions; for responses there is status_ttl=")


def _check_factor(option: str, value: float) -> None:
    if not _is_finite(value) or value < 0:
        raise ConfigError(option, f"must be a finite number from 0 on, not {value!r}")


def _is_finite(value: object) -> bool:
    """Whether it is a number that a clock can go by; an integer may be too large for that."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_exception(kind: type[Exception]) -> None:
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        raise ConfigError("negative", f"must name classes of exceptions, not {kind!r}")
    if issubclass(kind, TierCacheError):
        raise ConfigError("negative", f"{kind.__qualname__} says that the cache is used wrongly, and is never stored")


def check_of_responses(policy: Policy) -> Policy:
    """`policy` if it may stand for responses.

    Raises:
        ConfigError: it has an option that only functions know.
    """
    if policy.negative:
        raise ConfigError("negative", "is for functions; `status_ttl` says how long the errors of responses are kept")
    return policy


def check_seconds(option: str, value: float, *, zero: bool = False) -> float:
    """`value` if it is a usable duration in seconds.

    Raises:
        ConfigError: it is no number, not finite, negative, or 0 where `zero` does not allow that.
    """
    if not _is_finite(value):
        raise ConfigError(option, f"must be a finite number of seconds, not {value!r}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigError(option, f"must be {'at least' if zero else 'above'} 0 seconds, not {value!r}")
    return value


def check_settle(seconds: float) -> float:
    """`seconds` if an invalidation may be dated that far ahead.

    Raises:
        ConfigError: it is no duration, or longer than a day: for so long nothing would be cached.
    """
    if check_seconds("settle", seconds, zero=True) > MAX_SETTLE:
        raise ConfigError("settle", f"must be at most {MAX_SETTLE} seconds, not {seconds!r}")
    return seconds


def check_tag(option: str, tag: str) -> str:
    """`tag`, as written in code, if it may name a tag.

    Raises:
        ConfigError: it is empty, longer than 256 bytes, or holds `*` or a control character.
    """
    if not isinstance(tag, str) or not tag:
        raise ConfigError(option, f"a tag must be a text that is not empty, not {tag!r}")
    if len(tag.encode("utf-8", "surrogatepass")) > MAX_TAG_BYTES:
        raise ConfigError(option, f"a tag has at most {MAX_TAG_BYTES} bytes: {tag[:40]!r}...")
    if re.search(r"[*\x00-\x1f\x7f]", tag):
        raise ConfigError(option, f"a tag must not hold '*' or control characters: {tag!r}")
    return tag


def _check_template(option: str, template: str) -> None:
    literal = re.sub(r"\{[^\W\d]\w*\}", "x", template)
    if "{" in literal or "}" in literal:
        raise ConfigError(option, f"the fields in {template!r} must be plain names in pairs of braces")
    check_tag(option, literal)


def check_texts(option: str, value: str | Iterable[str]) -> tuple[str, ...]:
    """`value` as a sequence of texts, of which one text stands for itself.

    Raises:
        ConfigError: it holds something else, or an empty text.
    """
    if not isinstance(value, str | Iterable):
        raise ConfigError(option, f"must hold texts, not {value!r}")
    texts = (value,) if isinstance(value, str) else tuple(value)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ConfigError(option, f"must hold texts that are not empty, not {text!r}")
    return texts


def _check_status(option: str, status: int) -> None:
    if not isinstance(status, int) or not 200 <= status <= 599 or status in (206, 304):
        raise ConfigError(option, f"{status!r} is not the status of a complete response")


STATIC = Policy(
    ttl=604_800, l1_ttl=86_400, region=Region(name="static", max_entries=500, eviction="lru"), compress=True
)
"""Configuration, catalogues: a day in memory, a week in Redis."""

FREQUENT = Policy(
    ttl=3_600, l1_ttl=1_800, region=Region(name="frequent", max_entries=1_000, eviction="lru"), compress=True
)
"""What is asked again and again: half an hour in memory, an hour in Redis."""

TEMPORARY = Policy(ttl=1_800, l1_ttl=300, region=Region(name="temporary", max_entries=2_000, eviction="ttl"))
"""Searches, intermediate results: five minutes in memory, half an hour in Redis."""

SESSION = Policy(ttl=7_200, l1_ttl=3_600, region=Region(name="session", max_entries=1_000), per_user=True)
"""What belongs to one user: an hour in memory, two hours in Redis. Give it the user: `SESSION.but(user=...)`."""
