"""The function decorator, thin over the engine."""

from asgi_tiercache.decorator.cached import CachedFunctions

__all__ = ["CachedFunctions"]
