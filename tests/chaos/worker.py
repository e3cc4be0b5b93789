"""One worker of the chaos run: a FastAPI app under the middleware, served by uvicorn on a real socket.

Paths below `/_chaos/` are answered outside of all of it: what the driver asks for, and what it wants to know.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from asgi_tiercache import Policy, Purged, Receipt, Region, TierCache, TierCacheMiddleware
from tests.chaos.bodies import body_of, etag_of, group_of, partner, zipped
from tests.chaos.kinds import HARD_TIMEOUT, KINDS, MAX_LAG, MAX_UNVERIFIED, SLEEPY
from tests.chaos.plants import PLANTS, Plant
from tests.chaos.versions import Versions

Said = dict[str, Any]
REPLAYED_AFTER = 0.6
"""Seconds by which a hold is older than the sending that is known to have brought it to the log."""


class PlannedError(Exception):
    """A handler fails, as it was meant to."""


class WrongValueError(Exception):
    """A cached function returned what it cannot have returned for these arguments."""


def small(name: str) -> Region:
    """A part of memory that is too small for all there is."""
    return Region(name=name, max_entries=60, max_bytes=2_000_000)


class Worker:
    """The app, its cache, and what the driver may ask of it.

    Args:
        cache: Over the Redis behind this worker's proxy.
        versions: What the database holds.
        seed: Of what the handlers leave to chance.
        plant: What is wrong with this worker.
    """

    def __init__(self, cache: TierCache, versions: Versions, seed: int, plant: Plant) -> None:
        self.cache = cache
        self.versions = versions
        self.random = Random(seed)
        self.plant = plant
        self.counts: Counter[str] = Counter()
        self.held: dict[str, list[tuple[int, float]]] = {}
        """Changes whose invalidation is not in the log yet, by tag, with when that was said."""
        self.replayed: list[tuple[int, int]] = []
        cache.on("item_update", tags=["item:{item}"])
        cache.on_invalidate(self._taken)
        self.fact = self._function()
        self._ways = self._all_ways()
        app = self._app()
        policies = {f"/{kind}/{{item}}": policy for kind, policy in self._policies().items()}
        self.app = plant.around(TierCacheMiddleware(app, cache=cache, routes=policies))

    # ---- what is cached ----

    def _policies(self) -> dict[str, Policy | None]:
        def policy(kind: str, **options: Any) -> Policy:
            options = {"ttl": KINDS[kind].ttl, "tags": ["item:{item}"], "region": small(kind), **options}
            return Policy(**options)

        return {
            "page": policy("page", query=["q"], stale_while_revalidate=0.0),
            "vary": policy("vary"),
            "mine": policy("mine", vary_on=["authorization"]),
            "cookie": policy("cookie", cookies=["session"]),
            "user": policy("user", user=_user),
            "swr": policy("swr", stale_while_revalidate=KINDS["swr"].stale),
            "sie": policy("sie", stale_if_error=KINDS["sie"].stale),
            "timed": policy("timed", stale_if_error=KINDS["timed"].stale, soft_timeout=0.2, hard_timeout=HARD_TIMEOUT),
            "maybe": policy("maybe", status_ttl={404: 2}),
            "ask": policy("ask", methods=["POST"], body=True),
            "stream": policy("stream"),
            "large": policy("large", compress=True),
            "huge": policy("huge"),
            "failing": policy("failing"),
            "slow": policy("slow"),
            "never": None,
            "early": policy("early", early_refresh=1, jitter=0.2),
            "ahead": policy("ahead", refresh_ahead=True),
            "nested": policy("nested", tags=[], unverified="bypass"),
            "direct": None,
            "verify": policy("verify", verify=True),
            "bypass": policy("bypass", unverified="bypass"),
        }

    def _function(self) -> Any:
        @self.cache.cached(
            "fact:{group}:{item}", ttl=20, tags=["item:{item}"], unverified="bypass", region=small("facts")
        )
        async def fact(group: int, item: int) -> dict[str, Any]:
            version = self.versions[item]
            await asyncio.sleep(self.random.choice((0, 0, 0.005, 0.05)))
            return {"item": item, "version": version}

        return fact

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        for kind in KINDS:
            handler = getattr(self, f"_{kind}", self._plain)
            methods = ["POST"] if kind == "ask" else ["GET", "HEAD"]
            app.add_api_route(f"/{kind}/{{item}}", handler, methods=methods, name=kind)
        app.add_api_route("/page/{item}", self._put, methods=["PUT"])
        app.add_exception_handler(Exception, self._failed)
        return app

    async def _failed(self, request: Request, error: Exception) -> Response:
        if isinstance(error, PlannedError):
            return PlainTextResponse("planned", 500, headers={"x-expected": "raised"})
        sys.stderr.write(f"UNPLANNED {request.url} {''.join(traceback.format_exception(error))}\n")
        return PlainTextResponse(f"unplanned: {error!r}", 500)

    # ---- handlers ----

    async def _plain(self, request: Request, item: int) -> Response:
        return self._said(request, [self.versions[item]])

    def _said(
        self,
        request: Request,
        versions: list[int],
        *,
        status: int = 200,
        began: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """What a handler answers: of which `versions`, when it was made, and in what time."""
        said = self._about(request)
        kind = said["path"].split("/")[1]
        body = body_of(said, versions, KINDS[kind].size)
        if said.get("encoding"):
            body = zipped(body)
        return Response(body, status, {**(headers or {}), **self._marks(versions, began), "etag": etag_of(body)})

    def _marks(self, versions: list[int], began: float | None) -> dict[str, str]:
        self.counts["handlers"] += 1
        now = time.monotonic()
        return {
            "x-versions": ",".join(map(str, versions)),
            "x-made": f"{now if began is None else began:.6f}",
            "x-own": f"{0.0 if began is None else now - began:.6f}",
        }

    def _about(self, request: Request) -> Said:
        """All that the response depends on."""
        said: Said = {"path": request.url.path, "query": request.url.query}
        kind = said["path"].split("/")[1]
        if kind in ("mine", "user"):
            said["user"] = self.plant.user(request.headers.get("authorization"))
        elif kind == "page":  # what is on none of its links does not count, and reaches it where a request passes by
            said["query"] = urlencode([(name, value) for name, value in request.query_params.items() if name == "q"])
        elif kind == "cookie":
            said["user"] = request.cookies.get("session")
        elif kind == "vary":
            said["language"] = "de" if request.headers.get("accept-language", "").startswith("de") else "en"
            said["encoding"] = "gzip" if "gzip" in request.headers.get("accept-encoding", "") else ""
        return said

    async def _vary(self, request: Request, item: int) -> Response:
        said = self._said(request, [self.versions[item]], headers={"vary": "Accept-Encoding, Accept-Language"})
        if "gzip" in request.headers.get("accept-encoding", ""):
            said.headers["content-encoding"] = "gzip"
        return said

    async def _free(self, request: Request, item: int) -> Response:
        """Says itself how it may be cached, and answers conditions."""
        headers = {"cache-control": "max-age=3", "cache-groups": f'"item:{item}"'}
        answer = self._said(request, [self.versions[item]], headers=headers)
        if request.headers.get("if-none-match") == answer.headers["etag"]:
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
            return Response(status_code=304, headers=kept)
        return answer

    async def _sie(self, request: Request, item: int) -> Response:
        return await self._perhaps(request, item, 0.3)

    async def _failing(self, request: Request, item: int) -> Response:
        return await self._perhaps(request, item, 0.3)

    async def _perhaps(self, request: Request, item: int, chance: float) -> Response:
        began, version = time.monotonic(), self.versions[item]
        await asyncio.sleep(self.random.choice((0, 0, 0.01)))
        if self.random.random() < chance:
            if self.random.random() < 0.5:
                raise PlannedError
            return PlainTextResponse("planned", self.random.choice((500, 503)), headers={"x-expected": "answered"})
        return self._said(request, [version], began=began)

    async def _timed(self, request: Request, item: int) -> Response:
        began, version = time.monotonic(), self.versions[item]
        sleepy = item % SLEEPY == 0 and self.random.random() < 0.5
        await asyncio.sleep(2.0 if sleepy else self.random.choice((0, 0.05, 0.3)))
        return self._said(request, [version], began=began)

    async def _maybe(self, request: Request, item: int) -> Response:
        version = self.versions[item]
        return self._said(request, [version], status=404 if version % 2 else 200)

    async def _ask(self, request: Request, item: int) -> Response:
        began, version = time.monotonic(), self.versions[item]
        asked = await request.body()
        body = body_of({"path": request.url.path, "query": "", "asked": asked.decode()}, [version])
        return Response(body, headers=self._marks([version], began) | {"etag": etag_of(body)})

    async def _slow(self, request: Request, item: int) -> Response:
        began, version = time.monotonic(), self.versions[item]
        self.plant.at_work()
        await asyncio.sleep(self.random.uniform(0.3, 1.5))
        return self._said(request, [version], began=began)

    async def _early(self, request: Request, item: int) -> Response:
        began, version = time.monotonic(), self.versions[item]
        await asyncio.sleep(0.02)
        return self._said(request, [version], began=began)

    async def _ahead(self, request: Request, item: int) -> Response:
        return await self._early(request, item)

    async def _stream(self, request: Request, item: int) -> Response:
        version = self.versions[item]
        body = body_of(self._about(request), [version])
        breaks = self.random.random() < 0.1
        pause = self.random.choice((0, 0, 0.01, 0.05))

        async def pieces() -> AsyncIterator[bytes]:
            step = len(body) // 6 + 1
            for start in range(0, len(body), step):
                if breaks and start > len(body) // 2:
                    raise PlannedError
                yield body[start : start + step]
                await asyncio.sleep(pause)

        headers = self._marks([version], None) | {"etag": etag_of(body)}
        return StreamingResponse(pieces(), headers=headers | ({"x-expected": "breaks"} if breaks else {}))

    async def _nested(self, request: Request, item: int) -> Response:
        """Made of two cached values, and of nothing else."""
        began = time.monotonic()
        versions = []
        for each in (item, partner(item)):
            value = await self.fact(group_of(each), each)
            if value["item"] != each:
                raise WrongValueError(f"{value!r} for item {each}")
            versions.append(value["version"])
        return self._said(request, versions, began=began)

    async def _direct(self, request: Request, item: int) -> Response:
        """Values stored under keys; the response itself is not cached."""
        began = time.monotonic()
        wanted = {f"direct:{each}": each for each in (item, partner(item))}
        verified = self._verified
        found = await self.cache.get_many(wanted)
        versions = []
        for key, each in wanted.items():
            value = found.get(key)
            if value is None:
                since = self.cache.stamp()
                value = {"item": each, "version": self.versions[each]}
                await self.cache.set(key, value, ttl=20, tags=[f"item:{each}"], since=since)
            if value["item"] != each:
                raise WrongValueError(f"{value!r} for item {each}")
            versions.append(value["version"])
        mark = {} if verified and self._verified else {"x-unverified": "1"}
        return self._said(request, versions, began=began, headers=mark)

    async def _put(self, item: int) -> Response:
        """The driver has committed; the method alone invalidates the path."""
        return Response(status_code=204)

    @property
    def _verified(self) -> bool:
        return time.monotonic() < self.cache.engine.lease.until

    # ---- what the driver asks for ----

    async def invalidate(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Invalidate in the way asked for; when that returned, and what the receipt says."""
        if self.plant.deaf_to_invalidations:
            return {"at": time.monotonic(), "durable": True}
        receipt = await self._ways[asked["way"]](asked["item"], asked)
        at = time.monotonic()
        if not receipt.durable:
            for name in receipt.names or ("*",):
                self.held.setdefault(name, []).append((asked["change"], at))
        return {"at": at, "durable": receipt.durable}

    def _all_ways(self) -> dict[str, Callable[[int, Mapping[str, Any]], Awaitable[Receipt]]]:
        cache = self.cache
        return {
            "tag": lambda item, asked: cache.invalidate("item:{item}", item=item),
            "tags": lambda item, asked: cache.invalidate(*(f"item:{each}" for each in asked["items"])),
            "settle": lambda item, asked: cache.invalidate(f"item:{item}", settle=0.2),
            "soft": lambda item, asked: cache.invalidate(f"item:{item}", soft=True),
            "event": lambda item, asked: cache.emit("item_update", item=item),
            "key": lambda item, asked: cache.invalidate_key(f"fact:{group_of(item)}:{item}"),
            "pattern": lambda item, asked: cache.invalidate_pattern(f"fact:{group_of(item)}:*"),
            "glob": lambda item, asked: cache.invalidate_pattern(f"fact:?:{item}"),
            "path": lambda item, asked: cache.invalidate_path(f"/page/{item}"),
            "route": lambda item, asked: cache.invalidate_route("/vary/{item}"),
            "user": lambda item, asked: cache.invalidate_user(asked["user"]),
            "clear": lambda item, asked: cache.clear(),
        }

    def _taken(self, purged: Purged) -> None:
        """The log has an invalidation: which of those that were held it stands for."""
        now = time.monotonic()
        names = list(self.held) if purged.everything else [name for name in purged.tags if name in self.held]
        for name in names if purged.here and not purged.soft else ():
            self.replayed += [(change, int(now * 1e9)) for change, at in self.held[name] if at + REPLAYED_AFTER < now]
            self.held[name] = [(change, at) for change, at in self.held[name] if at + REPLAYED_AFTER >= now]

    def state(self) -> dict[str, Any]:
        """Whether all is well; and what was replayed since it was last asked."""
        engine, stats = self.cache.engine, self.cache.stats()
        replayed, self.replayed = self.replayed, []
        return {
            "breakers": {name: breaker["state"] for name, breaker in stats["breakers"].items()},
            "pending": len(engine.invalidation._held),
            "verified": self._verified,
            "epoch": engine.knowledge.epoch,
            "replayed": replayed,
            "rss": _rss(),
        }

    def report(self) -> dict[str, Any]:
        """What the worker holds."""
        engine, stats = self.cache.engine, self.cache.stats()
        queues = [level.queue for level in engine.stack._levels] if engine.stack is not None else []
        return {
            "tasks": dict(_tasks()),
            "fds": len(os.listdir("/proc/self/fd")),
            "rss": _rss(),
            "flights": len(engine.fills._under_way),
            "queued": sum(len(queue._waiting) + len(queue._leaving) for queue in queues),
            "pending": len(engine.invalidation._held),
            **{name: stats[name] for name in ("answers", "failures", "refreshes", "writes", "breakers", "rejected")},
            "evictions": sum(stats["evictions"].values()),
            "handlers": self.counts["handlers"],
        }


def _user(scope: Mapping[str, Any]) -> str | None:
    return dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ") or None


def _tasks() -> Counter[str]:
    current = asyncio.current_task()
    return Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not current)  # type: ignore[union-attr]


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Outer:
    """Answers the driver; says of every other response how long it took to begin, and which process gave it."""

    def __init__(self, worker: Worker, life: str) -> None:
        self.worker = worker
        self.life = life.encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/_chaos/"):
            return await self._control(scope["path"].removeprefix("/_chaos/"), receive, send)
        if scope["type"] != "http":
            await self.worker.app(scope, receive, send)
            return
        began, answered = time.perf_counter(), False

        async def marked(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "http.response.start":
                took = time.perf_counter() - began
                lines = [*message.get("headers", ()), (b"x-took", b"%.6f" % took), (b"x-life", self.life)]
                message = {**message, "headers": lines}
            await send(message)

        try:
            await self.worker.app(scope, receive, marked)
        except Exception as error:
            if not answered:
                sys.stderr.write(f"UNPLANNED {scope['path']} {''.join(traceback.format_exception(error))}\n")
            raise

    async def _control(self, what: str, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        asked = json.loads(body or b"{}")
        try:
            said = await self._say(what, asked)
        except Exception:
            said = {"error": traceback.format_exc()}
        text = json.dumps(said).encode()
        headers = [(b"content-length", b"%d" % len(text)), (b"x-life", self.life)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _say(self, what: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        match what:
            case "invalidate":
                return await self.worker.invalidate(asked)
            case "state":
                return self.worker.state()
            case "report":
                return self.worker.report()
        time.sleep(asked["seconds"])  # noqa: ASYNC251 - the fault is that the loop stands still
        return {}


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--versions", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--life", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--plant", choices=PLANTS, default="none")
    options = parser.parse_args()
    cache = TierCache.from_url(options.url, namespace=options.namespace, max_lag=MAX_LAG, max_unverified=MAX_UNVERIFIED)
    plant = PLANTS[options.plant]()
    plant.into(cache)
    worker = Worker(cache, Versions(options.versions), options.seed, plant)
    # Every other worker on the loop that production servers use: connections fail differently there.
    loop = "uvloop" if options.seed % 2 else "asyncio"
    config = uvicorn.Config(
        Outer(worker, options.life), loop=loop, log_level="critical", timeout_keep_alive=120, access_log=False
    )
    with socket.create_server(("127.0.0.1", options.port), backlog=512) as listener:
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
