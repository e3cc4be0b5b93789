"""The shortest complete program.

Run it with `uvicorn examples.minimal:app`, then ask for /fibonacci/30 twice: the first answer takes a moment, the
second comes out of memory, and its `Cache-Status` header says so.
"""

from fastapi import FastAPI

from asgi_tiercache import TierCache, TierCacheMiddleware

cache = TierCache()
app = FastAPI()
app.add_middleware(TierCacheMiddleware, cache=cache)


@app.get("/fibonacci/{n}")
@cache.response(ttl=300)
def fibonacci(n: int) -> int:
    """The `n`-th Fibonacci number, the slow way."""

    def number(n: int) -> int:
        return n if n < 2 else number(n - 1) + number(n - 2)

    return number(min(n, 30))
