"""What the client is told about how its request was handled: `Cache-Status` (RFC 9211)."""

from __future__ import annotations

from functools import lru_cache

from asgi_tiercache.http.structured import serialise_text

_REASONS = frozenset({"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"})


def hit(*, ttl: int, detail: str) -> bytes:
    """The member for an answer out of the cache.

    >>> hit(ttl=30, detail="L1")
    b'tiercache; hit; ttl=30; detail=L1'

    Args:
        ttl: Seconds for which the answer stays fresh; negative for how long it has been stale (section 2.4).
        detail: What else is worth knowing, such as the tier; `""`: nothing.
    """
    return b"tiercache; hit; ttl=%d%b" % (ttl, _encoded_detail(detail))


def local(*, detail: str) -> bytes:
    """The member of a response that the cache has made by itself: neither a hit nor forwarded (section 2)."""
    return f"tiercache{_detail(detail)}".encode("ascii")


def forward(reason: str, *, stored: bool = False, collapsed: bool = False, detail: str = "") -> bytes:
    """The member for a request that went on to the application.

    >>> forward("uri-miss", stored=True)
    b'tiercache; fwd=uri-miss; stored'

    Args:
        reason: Why (section 2.2): `bypass`, `method`, `uri-miss`, `vary-miss`, `miss`, `request`, `stale`, `partial`.
        stored: The response was stored (section 2.5).
        collapsed: The request waited for another one's response (section 2.6).
        detail: What else is worth knowing (section 2.8); `""`: nothing.
    """
    assert reason in _REASONS, reason
    flags = ("; stored" if stored else "") + ("; collapsed" if collapsed else "")
    return f"tiercache; fwd={reason}{flags}{_detail(detail)}".encode("ascii")


@lru_cache(maxsize=64)  # tiers and reasons: a few
@lru_cache(maxsize=32)
def _encoded_detail(detail: str) -> bytes:
    return _detail(detail).encode("ascii")


def _detail(detail: str) -> str:
    return f"; detail={serialise_text(detail)}" if detail else ""
