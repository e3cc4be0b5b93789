"""The ASGI middleware, thin over the engine."""

from asgi_tiercache.middleware.app import TierCacheMiddleware

__all__ = ["TierCacheMiddleware"]
