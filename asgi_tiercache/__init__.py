"""A response cache for ASGI apps: served from memory, then Redis, correct by the RFCs, one call to purge."""

from asgi_tiercache.config import FREQUENT, SESSION, STATIC, TEMPORARY, Policy, Region
from asgi_tiercache.errors import (
    BlockingCallError,
    CodecError,
    ConfigError,
    KeyingError,
    NoFillError,
    TierCacheError,
    TierError,
)
from asgi_tiercache.events import Preview
from asgi_tiercache.invalidation.listeners import Purged
from asgi_tiercache.invalidation.service import Receipt
from asgi_tiercache.middleware import TierCacheMiddleware
from asgi_tiercache.tiercache import TierCache

__all__ = [
    "FREQUENT",
    "SESSION",
    "STATIC",
    "TEMPORARY",
    "BlockingCallError",
    "CodecError",
    "ConfigError",
    "KeyingError",
    "NoFillError",
    "Policy",
    "Preview",
    "Purged",
    "Receipt",
    "Region",
    "TierCache",
    "TierCacheError",
    "TierCacheMiddleware",
    "TierError",
]
