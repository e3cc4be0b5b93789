"""What the client is told about how its request was handled: `Cache-Status` (RFC 9211).

Each function makes one member, which goes into a field line of its own behind those that are there: the cache closest
to the client comes last (section 2). `key` is never told, as it helps whoever wants to poison a cache (section 6).
"""

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


@lru_cache(maxsize=256)  # those who wait for one response are told the same
def forward(
    reason: str,
    *,
    fwd_status: int | None = None,
    ttl: int | None = None,
    stored: bool = False,
    collapsed: bool | None = None,
    detail: str = "",
) -> bytes:
    """The member for a request that went on to the application.

    >>> forward("stale", fwd_status=304, stored=True)
    b'tiercache; fwd=stale; fwd-status=304; stored'

    Args:
        reason: Why (section 2.2): `bypass`, `method`, `uri-miss`, `vary-miss`, `miss`, `request`, `stale`, `partial`.
        fwd_status: The status code that the application answered with, where the client is sent another one
            (section 2.3); None: the same.
        ttl: Seconds for which the answer stays fresh (section 2.4); None: nothing is known of that.
        stored: The response was stored (section 2.5).
        collapsed: The request waited for another one's response (section 2.6), and used it; False: it waited, and
            could not; None: it did not wait.
        detail: What else is worth knowing (section 2.8); `""`: nothing.
    """
    assert reason in _REASONS, reason
    parameters = (
        "" if fwd_status is None else f"; fwd-status={fwd_status}",
        "" if ttl is None else f"; ttl={ttl}",
        "; stored" if stored else "",
        "" if collapsed is None else "; collapsed" if collapsed else "; collapsed=?0",
    )
    return f"tiercache; fwd={reason}{''.join(parameters)}{_detail(detail)}".encode("ascii")


@lru_cache(maxsize=64)  # tiers and reasons: a few
def _encoded_detail(detail: str) -> bytes:
    return _detail(detail).encode("ascii")


def _detail(detail: str) -> str:
    return f"; detail={serialise_text(detail)}" if detail else ""
