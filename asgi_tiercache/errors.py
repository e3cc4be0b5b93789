"""Every exception of asgi_tiercache, below one root.

Outcomes that are expected (a miss, a response that may not be stored) are values; what is raised here is
somebody's mistake, and its message names the mistake.
"""

from __future__ import annotations


class TierCacheError(Exception):
    """The root of every exception that asgi_tiercache raises by itself."""


class ConfigError(TierCacheError, ValueError):
    """An option is wrong; `option` names it.

    Raised when the object that takes the option is built, or, where the route table is needed, at start.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class KeyingError(TierCacheError, TypeError):
    """An argument has no canonical form, so no key can be made of it. Names function, argument and type."""


class CodecError(TierCacheError, TypeError):
    """A value would not come back from the cache as it went in. Names the function or key, and the type."""


class NoFillError(TierCacheError, RuntimeError):
    """`cache.current` was used outside a handler and outside a cached function."""


class BlockingCallError(TierCacheError, RuntimeError):
    """A plain `def` function, cached or emitting, was called on an event loop's own thread, which it would block."""


class TierError(TierCacheError):
    """A tier did not do what it was asked. The guard around the tier turns it into a miss; requests never see it."""
