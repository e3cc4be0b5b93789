"""From a request to its key, or to the reason why it has none."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Collection
from typing import NamedTuple, Protocol, TypeAlias
from weakref import WeakSet

from starlette.types import Scope

from asgi_tiercache.config import Policy, Source
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.keys.credentials import OpenCredentials
from asgi_tiercache.keys.escape import Digest, digest, encoded, qualified_name
from asgi_tiercache.keys.form import SELECTIVE, RequestForm, RequestKey, Seen, keyed_headers, user_hash
from asgi_tiercache.keys.forwarded import RETARGETING, underscored
from asgi_tiercache.keys.withhold import Withholding
from asgi_tiercache.types import Header

__all__ = ["MEMOS_BYTES", "MEMO_BYTES", "MEMO_ENTRIES", "Memos", "Pass", "RequestKey", "RequestKeys", "user_hash"]

MEMO_ENTRIES = 4096
"""Keys that one route remembers at the most."""
MEMO_BYTES = 2 * 1024 * 1024
"""Bytes sent by clients that these hold at the most."""
MEMOS_BYTES = 8 * MEMO_BYTES
"""The same of all routes of a cache."""

# The fields of `Seen` as a plain tuple: a named one takes as long to make as all the rest of a repeated request.
_Fingerprint: TypeAlias = tuple[
    str, str, bytes | tuple[object, ...], str, str, bytes | None, bytes, tuple[Header, ...], bytes, bytes, bytes
]


class Pass(NamedTuple):
    """The request passes by the cache."""

    reason: str
    """`"host"` (sent twice), `"body"`, `"session"`, `"user"`, `"auth"`, `"tls"`, `"user-callable"`, `"key-callable"`,
    or a header: a credential, a condition that no cache evaluates, or one that makes another request of this."""


class Memo(Protocol):
    """Something that remembers what it has made of requests."""

    def forget(self) -> None:
        """Forget all of that; it is made again where it is asked for."""


class Memos:
    """Bounds what the routes of a cache remember together.

    Args:
        limit: Bytes sent by clients that are remembered at the most; beyond that all is forgotten.
    """

    def __init__(self, limit: int = MEMOS_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._all: WeakSet[Memo] = WeakSet()
        self.taken = 0

    def __repr__(self) -> str:
        return f"<Memos of {self.taken} bytes, at most {self._limit}>"

    def join(self, memo: Memo) -> None:
        """`memo` is one of those that count."""
        with self._lock:
            self._all.add(memo)

    def take(self, weight: int) -> None:
        """Somebody is about to remember so many bytes."""
        with self._lock:
            if self.taken + weight > self._limit:
                for memo in self._all:
                    memo.forget()
                self.taken = 0
            self.taken += weight


class RequestKeys:
    """Makes the keys of one route.

    Args:
        policy: What counts, what is ignored, what may not be cached.
        namespace: Begins every key, if given.
        credentials: Headers, named in lower case, that the route reads credentials from.
        digest: Names the canonical request; not trusted to keep two of them apart.
        memos: Bounds what this and others remember.

    Raises:
        ConfigError: `user=` or `key=` is a coroutine function.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        namespace: str = "",
        credentials: Collection[str] = (),
        digest: Digest = digest,
        memos: Memos | None = None,
    ) -> None:
        _refuse_coroutines(policy)
        self._withholding = Withholding(policy)
        self._form = RequestForm(policy, reaches=self._withholding.reaches, namespace=namespace, digest=digest)
        self._credentials = OpenCredentials(policy, credentials)
        self._keyed = keyed_headers(policy)
        self._keys_origin = "origin" in self._keyed
        self._user = policy.user
        self._key = policy.key
        self._refusals = _refusals(policy, self._credentials)
        self._refusals |= {name: Pass(name.decode()) for name in RETARGETING if self.varies(name.decode())}
        self._refusals |= self._misspelled(policy)
        self._watched = _watched(policy).union(self._refusals, self._form.forwarded)
        self._guards_scope = policy.mode == "explicit" and bool(self._credentials.scope)
        self._memo: dict[_Fingerprint, RequestKey] = {}
        self._memo_bytes = 0
        self._memos = memos or Memos()
        self._memos.join(self)

    def __repr__(self) -> str:
        return f"<RequestKeys, {len(self._memo)} remembered>"

    def of(self, scope: Scope, *, body_digest: bytes = b"") -> RequestKey | Pass:
        """The key of the HTTP request in `scope`, or why it passes by.

        Header names are taken to be in lower case, as ASGI demands. `body_digest` stands for the request's body where
        the policy keys it.
        """
        host: bytes | None = None
        found: list[Header] = []
        watched, refusals = self._watched, self._refusals
        for name, value in scope["headers"]:
            if name in watched:
                if host is None and name == b"host":
                    host = value
                elif name in refusals and not (name == b"content-length" and value == b"0"):
                    return refusals[name]
                elif name in SELECTIVE or (name == b"origin" and not self._keys_origin):
                    found.append((name, b""))  # that there is one is all that counts
                else:
                    found.append((name, value))
        if (
            self._guards_scope
            and ("session" in scope or "user" in scope or "auth" in scope or "tls" in (scope.get("extensions") or ()))
            and (credential := self._credentials.in_scope(scope))
        ):
            return Pass(credential)

        user = key = b""
        if self._user is not None and not (user := _asked(self._user, scope)):
            return Pass("user-callable")
        if self._key is not None and not (key := _asked(self._key, scope)):
            return Pass("key-callable")

        fingerprint = (
            scope["method"],
            scope.get("scheme", "http"),
            tuple(scope.get("server") or ()) if host is None else host,
            scope.get("root_path", ""),
            scope["path"],
            scope.get("raw_path"),
            scope["query_string"],
            tuple(found),
            body_digest,
            user,
            key,
        )
        return self._memo.get(fingerprint) or self._made(fingerprint)

    def withhold(self, scope: Scope, key: RequestKey) -> Scope:
        """A copy of `scope` for the fill of `key`: without conditions and ranges, nor what the policy keeps back."""
        return self._withholding.reduced(scope, key.query)

    @property
    def credentials(self) -> frozenset[bytes]:
        """The headers that `credentialed` looks for."""
        return self._credentials.headers

    def credentialed(self, scope: Scope) -> bool:
        """Whether the request has a credential that only the response's own word makes shareable.

        In HTTP mode `Authorization`, `Cookie`, other headers that say who asks, and what the scope says of the user
        count, by the RFC (9111, section 3.5) `Authorization` alone; never what the policy keys or ignores.
        """
        return self._credentials.anywhere(scope)

    def varies(self, name: str) -> bool:
        """Whether the request field `name`, in lower case, can tell two requests of one key apart to the handler."""
        return name not in self._keyed and self._withholding.reaches(name.encode("latin-1"))

    def _misspelled(self, policy: Policy) -> dict[bytes, Pass]:
        """What some apps take for a header that counts, and nobody else sends."""
        keyed = (name.encode() for name in policy.vary_on)
        counting = {*RETARGETING, *self._form.forwarded, *self._credentials.headers, *keyed}
        return {
            spelling: Pass(name.decode())
            for name in counting
            for spelling in underscored(name)
            if self.varies(spelling.decode())
        }

    def forget(self) -> None:
        """Forget the keys that were made."""
        self._memo.clear()
        self._memo_bytes = 0

    def _made(self, fingerprint: _Fingerprint) -> RequestKey:
        seen = Seen(*fingerprint)
        made = self._form.key(seen)
        weight = seen.weight
        if len(self._memo) >= MEMO_ENTRIES or self._memo_bytes + weight > MEMO_BYTES:
            self.forget()
        if weight <= MEMO_BYTES:
            self._memos.take(weight)
            self._memo[fingerprint] = made
            self._memo_bytes += weight
        return made


def _refusals(policy: Policy, credentials: OpenCredentials) -> dict[bytes, Pass]:
    """The headers with which a request passes by; `host` only where it comes twice."""
    refusals = {b"host": Pass("host")}
    if not policy.body:
        refusals |= dict.fromkeys((b"content-length", b"transfer-encoding"), Pass("body"))
    if policy.mode == "explicit":
        refusals |= {name: Pass(name.decode()) for name in credentials.headers}
    else:
        # No cache evaluates them, and the handler may want to (RFC 9111, section 4.3.2).
        refusals |= {name: Pass(name.decode()) for name in (b"if-match", b"if-unmodified-since")}
    return refusals


def _watched(policy: Policy) -> frozenset[bytes]:
    names = {b"origin", *SELECTIVE, *(name.encode() for name in keyed_headers(policy))}
    return frozenset(names | {b"cookie"} if policy.cookies else names)


def _asked(source: Source, scope: Scope) -> bytes:
    """What `source` says of the request, after a byte for its type; empty where it raises or says nothing usable."""
    try:
        value: object = source(scope)
        if isinstance(value, str):
            return b"s" + encoded(value)
        if isinstance(value, bytes):
            return b"b" + value
        # A bool would make one user of everybody who is logged in.
        return b"i%d" % value if isinstance(value, int) and not isinstance(value, bool) else b""
    except Exception:
        # Most often a request without what the callable looks for: it passes by, and the reason tells.
        return b""


def _refuse_coroutines(policy: Policy) -> None:
    for option, source in (("user", policy.user), ("key", policy.key)):
        if inspect.iscoroutinefunction(source):
            raise ConfigError(option, f"must be a plain function, which {qualified_name(source)} is not")
