"""From what was seen of a request to its canonical form and its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote

from asgi_tiercache.config import Policy
from asgi_tiercache.http.conditional import CONDITIONS
from asgi_tiercache.keys.cookies import chosen_cookies
from asgi_tiercache.keys.escape import Digest, digest, encoded, endpoint, frame, qualified_name, sha256
from asgi_tiercache.keys.forwarded import FORWARDED, forwarded_lines
from asgi_tiercache.keys.host import normal_host
from asgi_tiercache.keys.query import QueryForm
from asgi_tiercache.types import Header

SELECTIVE = CONDITIONS | {b"range"}
"""The request fields because of which an answer may be other than the whole stored response."""


class RequestKey(NamedTuple):
    """What a request is called in the cache."""

    text: str
    """`[<namespace>:]api:response:<endpoint>:<params_hash>`."""
    canonical: bytes
    """The canonical request, compared on every hit; credentials in it are SHA-256 sums."""
    path: str
    """The path as the application sees it, root path included, escaped by `endpoint`: for the implicit tag."""
    query: bytes
    """The query string that the handler may see."""
    user: str | None
    """`user_hash` of what `user=` returned; None without `user=`."""
    site: str = ""
    """The host, escaped likewise: for the implicit tag of what unsafe methods invalidate."""
    selective: bool = False
    """The request has a condition or a range, which its key does not tell: it may be answered with less than all."""
    partial: bool = False
    """It has a range."""


_LINE_BYTES = 64
"""What a header line costs beside its value: of some, only that they are there is kept, and there may be thousands."""


class Seen(NamedTuple):
    """All of a request that its key depends on."""

    method: str
    scheme: str
    host: bytes | tuple[object, ...]
    """The `Host` field, or the server's address where there is none."""
    root_path: str
    path: str
    raw_path: bytes | None
    query: bytes
    headers: tuple[Header, ...]
    """The keyed lines, and `Cookie` where cookies are keyed, in order; others do no harm."""
    body_digest: bytes
    user: bytes
    """What `user=` returned, after a byte for its type; empty without `user=`."""
    key: bytes
    """The same of `key=`."""

    @property
    def weight(self) -> int:
        """Bytes that the client made this and its key hold, roughly."""
        lines = sum(_LINE_BYTES + len(value) for _, value in self.headers)
        paths = len(self.path) + len(self.raw_path or b"") + len(self.root_path)
        return lines + 2 * (paths + len(self.query) + len(self.host)) + len(self.user) + len(self.key)


class RequestForm:
    """Makes keys by one policy, namespace and hash function.

    Args:
        policy: What counts.
        reaches: Whether the handler receives a header, named in lower case.
        namespace: Begins every key, if given.
        digest: Names the canonical request.
    """

    def __init__(
        self, policy: Policy, *, reaches: Callable[[bytes], bool], namespace: str = "", digest: Digest = digest
    ) -> None:
        self._policy = policy
        self._digest = digest
        self._prefix = f"{namespace}:api:response:" if namespace else "api:response:"
        self._query = QueryForm(policy)
        self._keyed = [name.encode() for name in keyed_headers(policy)]
        self.forwarded = frozenset(name for name in FORWARDED.difference(self._keyed) if reaches(name))
        """The fields that count as part of the URI: whatever of them reaches the handler."""
        self._options = _fingerprint(policy)

    def key(self, seen: Seen) -> RequestKey:
        """The key of the request of which `seen` was seen."""
        query = self._query.canonical(seen.query)
        canonical = frame(
            b"request",
            *self._target(seen),
            query,
            # CORS middleware answers requests without an origin in another way, and does not say so in `Vary`.
            b"cross-origin" if any(name == b"origin" for name, _ in seen.headers) else b"",
            self._forwarded(seen.headers),
            *self._lines(seen.headers),
            *self._cookies(seen.headers),
            seen.body_digest if self._policy.body else b"",
            sha256(seen.user),
            sha256(seen.key),
            encoded(self._policy.version),
            self._options,
        )
        root = missing_root(seen.root_path, seen.path)
        raw_path = quoted(seen.path) if seen.raw_path is None else seen.raw_path
        return RequestKey(
            text=f"{self._prefix}{self._endpoint(quoted(root) + raw_path)}:{self._digest(canonical)}",
            canonical=canonical,
            path=self._endpoint(root + seen.path),
            query=query,
            user=sha256(seen.user[1:]).hex() if self._policy.user is not None else None,
            site=site_of(seen.host, seen.scheme),
            selective=any(name in SELECTIVE for name, _ in seen.headers),
            partial=any(name == b"range" for name, _ in seen.headers),
        )

    def _target(self, seen: Seen) -> Iterable[bytes]:
        """Method, scheme, host and paths. Both paths count: what rewrites one may leave the other as it was."""
        yield encoded("GET" if seen.method == "HEAD" else seen.method)
        yield encoded(seen.scheme)
        yield _host(seen.host, seen.scheme)
        raw_path = b"-" if seen.raw_path is None else b"=" + seen.raw_path
        paths = (encoded(seen.root_path), encoded(seen.path), raw_path)
        yield from map(sha256, paths) if self._policy.hash_path else paths

    def _lines(self, headers: tuple[Header, ...]) -> Iterable[bytes]:
        """Each keyed header: all its lines, in order. Any of them may be a credential, so none stays readable."""
        for name in self._keyed:
            yield sha256(frame(*[value for sent, value in headers if sent == name]))

    def _forwarded(self, headers: tuple[Header, ...]) -> bytes:
        lines = forwarded_lines(headers, self.forwarded)
        return sha256(frame(*lines)) if lines else b""

    def _cookies(self, headers: tuple[Header, ...]) -> Iterable[bytes]:
        lines = [value for name, value in headers if name == b"cookie"]
        for values in chosen_cookies(lines, self._policy.cookies).values():
            yield sha256(frame(*values))

    def _endpoint(self, path: bytes | str) -> str:
        return endpoint(path, hash_path=self._policy.hash_path, digest=self._digest)


def keyed_headers(policy: Policy) -> tuple[str, ...]:
    """The names of the headers that count whole: those of `vary_on`, and what tells how to read a keyed body."""
    return (*policy.vary_on, *(("content-type", "content-encoding") if policy.body else ()))


def user_hash(user: str | bytes | int) -> str:
    """How a user appears in tags: the SHA-256 of `user` written as text.

    The number 7 and the text "7" are two users to a key, and one to whoever invalidates.
    """
    return sha256(user if isinstance(user, bytes) else encoded(str(user))).hex()


def site_of(host: bytes | tuple[object, ...], scheme: str) -> str:
    """The host of a request, or the server's address where it names none, as it stands in implicit tags."""
    return endpoint(_host(host, scheme), hash_path=False)


def _host(host: bytes | tuple[object, ...], scheme: str) -> bytes:
    if isinstance(host, bytes):
        return b"=" + normal_host(host, scheme)
    return b"-" + frame(*(encoded(str(part)) for part in host))


def missing_root(root_path: str, path: str) -> str:
    """The part of the root path that `path` lacks: nothing by ASGI, all of it where a proxy stripped it."""
    root = root_path.rstrip("/")
    return "" if path == root or path.startswith(root + "/") else root


def quoted(path: str) -> bytes:
    """`path` percent-encoded, as its client may have sent it."""
    return quote(path, errors="surrogatepass").encode()


def _fingerprint(policy: Policy) -> bytes:
    """The options that shape keys and responses: a deployment that changes them starts afresh."""
    options = {
        "mode": policy.mode,
        "tags": policy.tags,
        "query": policy.query,
        "drop_query": policy.drop_query,
        "vary_on": policy.vary_on,
        "cookies": policy.cookies,
        "ignore": policy.ignore,
        "strict": policy.strict,
        "downstream": policy.downstream,
        "user": qualified_name(policy.user) if policy.user else None,
        "key": qualified_name(policy.key) if policy.key else None,
    }
    return sha256(frame(*(encoded(f"{name}={value!r}") for name, value in options.items())))
