"""Workers in this process before a real Redis, a truth that changes, and requests whose every answer is checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.invalidation.service import Receipt
from tests.middleware.asgi import http_scope

USERS = ("ann", "ben")
KINDS = ("item", "sure", "free", "mine")
MAX_LAG = 1.0


@dataclass(slots=True)
class Answer:
    """What one request got, and what it cost."""

    path: str
    user: str | None
    status: int
    body: bytes
    told: str
    """`Cache-Status`."""
    seconds: float
    oldest: int
    """The version whose durable invalidation the worker had to know when the request began: none may be older."""

    @property
    def version(self) -> int:
        """Of the item that it tells of."""
        version: int = json.loads(self.body)["version"]
        return version

    @property
    def wrong(self) -> str | None:
        """What is wrong with it; None where nothing is."""
        if self.status != 200:
            return f"{self.path}: status {self.status}"
        said = json.loads(self.body)
        if (said["path"], said["user"]) != (self.path, self.user):
            return f"{self.path} of {self.user}: the answer of {said['path']} of {said['user']}"
        if said["version"] < self.oldest:
            return f"{self.path}: version {said['version']}, though {self.oldest} was durable"
        return None


@dataclass(frozen=True, slots=True)
class Durable:
    """A version whose invalidation stood in Redis when `worker` was told so, at a moment of the monotonic clock."""

    version: int
    worker: Worker
    at: float


@dataclass
class Truth:
    """What the app's database would hold: a version of each item."""

    versions: dict[str, int] = field(default_factory=dict)
    durable: dict[str, list[Durable]] = field(default_factory=dict)

    def version(self, item: str) -> int:
        return self.versions.get(item, 0)

    def oldest(self, item: str, worker: Worker) -> int:
        """The version that `worker` must serve by now: its own at once, those of others after its `lag`."""
        now = time.monotonic()
        known = (
            durable.version
            for durable in self.durable.get(item, ())
            if durable.worker is worker or durable.at + worker.lag < now
        )
        return max(known, default=0)


class Worker:
    """One process's app and cache, though in this process.

    Routes: `/item/{id}`, under a policy with tags; `/sure/{id}`, which asks the log on every read; `/free/{id}`, which
    says itself how it may be cached; `/mine/{id}`, keyed by `Authorization`.
    """

    def __init__(self, redis: str | Redis, truth: Truth, **options: Any) -> None:
        self.truth = truth
        self.lag = MAX_LAG
        """Seconds after which it has to know what another has invalidated; more where a test cuts it off."""
        self.calls = 0
        """How often a handler ran."""
        self.answers: list[Answer] = []
        self.seconds = 0.0
        """How long a handler takes, once it has read the item."""
        self.padding = 500
        """Bytes by which answers are longer than they had to be."""
        policy = Policy(ttl=300, tags=["item:{id}"])
        make: Any = TierCache.from_url if isinstance(redis, str) else TierCache.from_client
        self.cache: TierCache = make(redis, **options)
        self.plain = Starlette(routes=[Route(f"/{kind}/{{id}}", self._page) for kind in KINDS])
        """The app without its cache."""
        self.app = TierCacheMiddleware(
            self.plain,
            cache=self.cache,
            routes={
                "/item/{id}": policy,
                "/sure/{id}": policy.but(verify=True),
                "/mine/{id}": policy.but(vary_on=["authorization"]),
            },
        )

    async def _page(self, request: Request) -> Response:
        self.calls += 1
        item = request.path_params["id"]
        said = {
            "path": request.url.path,
            "user": request.headers.get("authorization"),
            "version": self.truth.version(item),
            "padding": "x" * self.padding,
        }
        await asyncio.sleep(self.seconds)
        if request.url.path.startswith("/free"):
            self.cache.current.tag(f"item:{item}")
            return JSONResponse(said, headers={"cache-control": "max-age=300"})
        return JSONResponse(said)

    async def ask(self, path: str, user: str | None = None, *, plain: bool = False) -> Answer:
        """Send one request, past the cache if `plain`; its answer is kept in `answers`, too."""
        headers = [] if user is None else [(b"authorization", user.encode())]
        oldest = self.truth.oldest(path.rpartition("/")[2], self)
        messages: list[Any] = []
        received = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for message in received:
                return message
            await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            messages.append(message)

        started = time.perf_counter()
        await (self.plain if plain else self.app)(http_scope(path, headers=headers), receive, send)
        seconds = time.perf_counter() - started
        lines = dict(messages[0]["headers"])
        body = b"".join(message.get("body", b"") for message in messages[1:])
        told = lines.get(b"cache-status", b"").decode()
        answer = Answer(path, user, messages[0]["status"], body, told, seconds, oldest)
        self.answers.append(answer)
        return answer

    async def change(self, item: str) -> Receipt:
        """Commit a new version of `item`, then invalidate it."""
        version = self.truth.versions[item] = self.truth.version(item) + 1
        receipt = await self.cache.invalidate(f"item:{item}")
        if receipt.durable:
            self.truth.durable.setdefault(item, []).append(Durable(version, self, time.monotonic()))
        return receipt

    @property
    def wrong(self) -> list[str]:
        """What was wrong with the answers so far."""
        return [wrong for answer in self.answers if (wrong := answer.wrong)]

    @property
    def uses_redis(self) -> bool:
        """Whether its breaker is closed."""
        breaker = self.cache.stats()["breakers"].get("L2")
        return breaker is None or breaker["state"] == "closed"


@contextlib.asynccontextmanager
async def workers(url: str, number: int = 2, **options: Any) -> AsyncIterator[list[Worker]]:
    """`number` of them with one truth, closed at the end; every answer they gave must have been right."""
    truth = Truth()
    made = [Worker(url, truth, **options) for _ in range(number)]
    try:
        yield made
    finally:
        for worker in made:
            await worker.cache.aclose()
    assert [wrong for worker in made for wrong in worker.wrong] == []
