"""Clients: what they ask for, how they take it, when they leave; and what that cost them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from urllib.parse import urlencode

from tests.chaos.bodies import ITEMS
from tests.chaos.checker import Asked, Checker, Told
from tests.chaos.client import Connection, CutError, Response, request
from tests.chaos.kinds import ENCODINGS, KINDS, LANGUAGES, USERS
from tests.chaos.timeline import Timeline
from tests.chaos.versions import Versions

PATIENCE = 45.0
"""Seconds after which an answer that did not come never comes."""
THINKING = 0.03
"""Seconds between what a client asks for, in the mean."""
HOT = 5
"""Items that are asked for more often."""


class Figures:
    """What the answers were, and how long they took to begin."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.origins: dict[str, Counter[str]] = {"calm": Counter(), "faults": Counter()}
        self.seconds: dict[tuple[str, str], list[float]] = {}
        """By phase and by what was measured."""
        self.recent: Counter[str] = Counter()
        """Hits and others since it was last emptied."""

    def add(self, asked: Asked, told: Told, response: Response, phase: str, client: float) -> None:
        """Count an answer."""
        self.kinds[f"{asked.kind} {asked.method}" if asked.method != "GET" else asked.kind] += 1
        if not told.text:
            origin = "none (no policy, or an error)"
        elif told.hit:
            origin = told.detail
        else:
            origin = "collapsed" if "collapsed;" in told.text else "bypass" if "fwd=bypass" in told.text else "miss"
        self.origins[phase][origin] += 1
        self.recent["hits" if told.hit or origin == "collapsed" else "others"] += 1
        took = float(response.headers.get("x-took", 0))
        self._note(phase, "client, all", client)
        if told.hit:
            self._note(phase, f"server, hit in {told.detail.partition('-')[0]}", took)
        elif "x-own" in response.headers and origin != "collapsed":
            own = float(response.headers["x-own"])
            self._note(phase, "handler alone", own)
            where = "while Redis is out of reach" if "unverified" in told.detail else "to the handler"
            self._note(phase, f"server, added {where}", max(0.0, took - own))

    def _note(self, phase: str, what: str, seconds: float) -> None:
        self.seconds.setdefault((phase, what), []).append(seconds)


class Client:
    """One client of one worker: one connection, one thing after another.

    Args:
        worker: The worker's number.
        port: Its port.
        random: What it asks for.
    """

    def __init__(
        self,
        worker: int,
        port: int,
        random: Random,
        *,
        versions: Versions,
        checker: Checker,
        timeline: Timeline,
        figures: Figures,
        counts: Counter[str],
        changed: Callable[[int, int, int, str], None],
    ) -> None:
        self.worker = worker
        self.random = random
        self.counts = counts
        self._versions = versions
        self._checker = checker
        self._timeline = timeline
        self._figures = figures
        self._changed = changed
        self._connection = Connection(port)
        self._tags: dict[str, str] = {}
        self._names = list(KINDS)
        self._weights = [kind.weight for kind in KINDS.values()]

    async def run(self, stopped: asyncio.Event) -> None:
        """Go on until `stopped`."""
        while not stopped.is_set():
            await asyncio.sleep(self.random.expovariate(1 / THINKING))
            how = self.random.random()
            if how < 0.02:
                await self._leave()
            elif how < 0.04:
                await self._ask([self._any() for _ in range(3)])
            else:
                await self._ask([self._any()])
            if self.random.random() < 0.02:
                self._connection.close()
        self._connection.close()

    # ---- what is asked for ----

    def _any(self) -> Asked:
        name = self.random.choices(self._names, self._weights)[0]
        hot = name == "slow" or self.random.random() < 0.7  # so that several wait for the same
        item = self.random.randrange(HOT if hot else ITEMS)
        path, query = f"/{name}/{item}", self._query(name)
        target = path + (f"?{query}" if query else "")
        headers: dict[str, str] = {"x-forwarded-host": f"evil{self.random.randrange(9)}"}
        asked = Asked(name, item, "GET", target, headers, {"path": path, "query": query}, self.worker)
        if name == "ask":
            self._put_body(asked)
        elif name in ("mine", "user"):
            headers["authorization"] = asked.said["user"] = f"Bearer {self.random.choice(USERS)}"
        elif name == "cookie":
            asked.said["user"] = self.random.choice(USERS)
            headers["cookie"] = f"ads={self.random.random()}; session={asked.said['user']}"
        elif name == "vary":
            asked.said["language"] = language = self.random.choice(LANGUAGES)
            asked.said["encoding"] = encoding = self.random.choice(ENCODINGS)
            headers |= {"accept-language": language} | ({"accept-encoding": encoding} if encoding else {})
        elif name == "page":
            self._dress_page(asked)
        if asked.method == "GET":
            self._modify(asked)
        return asked

    def _query(self, name: str) -> str:
        if name in ("page", "maybe", "swr", "mine") and self.random.random() < 0.3:
            return urlencode({"q": f"{self.random.randrange(2)}:é&x"})
        return ""

    def _dress_page(self, asked: Asked) -> None:
        """Parameters that do not count; and a few that change what the page shows."""
        if self.random.random() < 0.3:
            asked.target += ("&" if "?" in asked.target else "?") + f"utm_source={self.random.random()}"
        if self.random.random() < 0.01:
            asked.method, asked.target = "PUT", f"/page/{asked.item}"
            self._versions.commit(asked.item)

    def _put_body(self, asked: Asked) -> None:
        words = "".join(self.random.choice('ab:;&\\"') for _ in range(self.random.choice((2, 2, 2, 300))))
        asked.method, asked.body = "POST", json.dumps({"words": words[:2], "long": len(words)}).encode()
        asked.headers["content-type"] = "application/json"
        asked.said["asked"] = asked.body.decode()

    def _modify(self, asked: Asked) -> None:
        how = self.random.random()
        if how < 0.05:
            asked.method = "HEAD"
        elif how < 0.1 and asked.kind != "stream":
            first = self.random.randrange(500)
            asked.headers["range"] = f"bytes={first}-{first + self.random.randrange(400)}"
        elif how < 0.25 and (tag := self._tags.get(asked.target)):
            asked.headers["if-none-match"] = tag
        elif how < 0.27 and asked.kind == "free":
            asked.headers["cache-control"] = self.random.choice(("no-cache", "max-age=1", "no-store", "max-stale=2"))

    # ---- how it is taken ----

    async def _ask(self, many: list[Asked]) -> None:
        for asked in many:
            asked.began = time.monotonic()
            asked.newest = [self._versions[item] for item in asked.items]
        connection = self._connection
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.send([_sent(asked) for asked in many])
                for asked in many:
                    response = await connection.receive(bodiless=asked.method == "HEAD")
                    self._came(asked, response)
        except TimeoutError:
            connection.close()
            self._checker.found(f"no answer within {PATIENCE} s; {many[-1]}", many[-1].began)
        except CutError as cut:
            connection.close()
            self._cut(many, cut)
        except OSError:
            connection.close()
            self._lost(many[0], "no connection")
            await asyncio.sleep(0.1)

    def _came(self, asked: Asked, response: Response) -> None:
        now = time.monotonic()
        newest = [self._versions[item] for item in asked.items]
        self._checker.check(asked, response, newest)
        if "x-expected" not in response.headers and (tag := response.headers.get("etag")):
            self._tags[asked.target] = tag
        if asked.method == "PUT" and response.status == 204:
            self._changed(asked.worker, asked.item, asked.newest[0], response.headers["x-life"])
        if not self._timeline.stopped(asked.worker, asked.began, now):
            phase = "faults" if self._timeline.touched(None, asked.began, now) else "calm"
            self._figures.add(asked, Told.of(response), response, phase, now - asked.began)

    def _cut(self, many: list[Asked], cut: CutError) -> None:
        if cut.response is not None and "x-expected" in cut.response.headers:
            self.counts["cut as planned"] += 1
        elif not cut.reused:
            self._lost(many[0], "the connection was cut")

    def _lost(self, asked: Asked, what: str) -> None:
        killed = any(
            event.name == "worker killed"
            and event.worker == asked.worker
            and event.began < time.monotonic()
            and (self._timeline.over(event) is None or self._timeline.over(event) > asked.began)  # type: ignore[operator]
            for event in self._timeline.events
        )
        if killed:
            self.counts["lost with a killed worker"] += 1
        else:
            self._checker.found(f"{what}; {asked}", asked.began)

    async def _leave(self) -> None:
        """Before the answer, after its head, or in the middle."""
        asked = self._any()
        asked.headers.pop("x-forwarded-host", None)
        connection = self._connection
        with contextlib.suppress(OSError, CutError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await connection.send([_sent(asked)])
                when = self.random.random()
                if when < 0.4:
                    await asyncio.sleep(self.random.choice((0, 0.001, 0.02)))
                else:
                    await connection.receive(body=False)
        connection.close()
        self.counts["clients that left"] += 1


def _sent(asked: Asked) -> bytes:
    return request(asked.method, asked.target, asked.headers, asked.body)
