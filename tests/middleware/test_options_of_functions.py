"""Options that only functions know are refused where a policy stands for responses."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware

NEGATIVE = Policy(ttl=60, negative={LookupError: 10})


def test_exceptions_are_stored_of_functions_alone() -> None:
    cache = TierCache()
    with pytest.raises(ConfigError, match="status_ttl"):
        cache.response(NEGATIVE)
    with pytest.raises(ConfigError, match="status_ttl"):
        TierCacheMiddleware(Starlette(), cache=cache, routes={"/": NEGATIVE})
    with pytest.raises(ConfigError, match="status_ttl"):
        TierCacheMiddleware(Starlette(), cache=cache, default=NEGATIVE)
    cache.close()
