"""Random requests, times, handlers and invalidations against a small model of what RFC 9111 lets a cache answer.

The model knows nothing of entries, tiers or flights. It remembers what the handler has said when, and asks of each
answer whether something that was said permits it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCacheMiddleware
from tests.engine.doubles import Fleet, written
from tests.middleware.asgi import Exchange, Reply, http_scope, run, turns, until

Step = tuple[str, dict[str, Any]]
"""The name of a method of `World`, and its arguments."""

POLICIES = {
    "http": Policy.http(tags=("{url}",)),
    "rfc9111": Policy.rfc9111(tags=("{url}",)),
    "explicit": Policy(ttl=10, retention=20, tags=("{url}",)),
}
CREDENTIAL = {
    "http": (b"cookie", b"a=b"),
    "rfc9111": (b"authorization", b"Basic eA=="),
    "explicit": (b"cookie", b"a=b"),
}


@dataclass(frozen=True)
class Said:
    """What a `Cache-Control` of a response means."""

    lifetime: int | None = None
    revalidate: int = 0
    error: int | None = None
    must: bool = False
    public: bool = False
    never: bool = False


RESPONSES = {
    "": Said(),
    "max-age=10": Said(10),
    "max-age=10, public": Said(10, public=True),
    "max-age=10, must-revalidate": Said(10, must=True),
    "s-maxage=10": Said(10, must=True, public=True),
    "no-cache": Said(0, must=True),
    "no-store": Said(never=True),
    "private": Said(never=True),
    "max-age=5, stale-while-revalidate=10": Said(5, revalidate=10),
    "max-age=5, stale-if-error=5": Said(5, error=5),
    "public, max-age=5, stale-while-revalidate=10, stale-if-error=20": Said(5, revalidate=10, error=20, public=True),
}


@dataclass(frozen=True)
class Asked:
    """What a `Cache-Control` of a request means."""

    no_cache: bool = False
    only_if_cached: bool = False
    max_age: float = math.inf
    min_fresh: int = 0
    max_stale: float | None = None


REQUESTS = {
    "": Asked(),
    "no-cache": Asked(no_cache=True),
    "no-store": Asked(),
    "only-if-cached": Asked(only_if_cached=True),
    "max-age=0": Asked(max_age=0),
    "max-age=3": Asked(max_age=3),
    "min-fresh=3": Asked(min_fresh=3),
    "max-stale=4": Asked(max_stale=4),
    "max-stale": Asked(max_stale=math.inf),
}


@dataclass(frozen=True)
class Question:
    """One request."""

    url: str = "a"
    language: str = "en"
    method: str = "GET"
    directives: str = ""
    credential: bool = False
    condition: int | None = None
    """Names the entity tag of the version that is so many versions old."""
    part: bool = False


@dataclass
class Statement:
    """What the handler said in one call."""

    asked_by: bytes
    at: float
    url: str
    language: str | None
    """None: whatever the language."""
    version: int
    said: Said
    partial: bool
    credential: bool
    no_store: bool
    number: int
    modified: bool = False
    """It says when it was last modified."""
    stored: bool = False
    soft: bool = False

    @property
    def name(self) -> str:
        """Names the representation."""
        return f"{self.url}.{self.language or 'any'}.{self.version}"


def content(name: str) -> bytes:
    """The representation of that name; no two versions are of one length."""
    return name.encode() + b"*" * int(name.rsplit(".", 1)[1])


@dataclass
class World:
    """The handler, the clock, and what was said."""

    mode: str
    fleet: Fleet = field(default_factory=Fleet)
    cache_control: str = "max-age=10"
    varies: bool = False
    validator: str = "etag"
    ranges: bool = True
    fails: int | None = None
    """A status code; 0: an exception."""
    version: int = 1
    statements: list[Statement] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)
    """The requests for which it failed, in the present step."""

    def __post_init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.calls: list[Statement] = []
        self.cache = self.fleet.worker()
        self.app = TierCacheMiddleware(self.handle, cache=self.cache, default=POLICIES[self.mode])
        self._numbers = itertools.count(1)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The handler."""
        headers = dict(scope["headers"])
        statement = self._begun(scope, headers)
        self.calls.append(statement)
        await self.open.wait()
        if self.fails is not None:
            self.calls.remove(statement)
            self.failed.append(statement.asked_by)
            if not self.fails:
                raise RuntimeError("down")
            await _send(send, self.fails, [], b"failed")
            return
        statement.version, statement.said = self.version, RESPONSES[self._cache_control(scope, headers)]
        statement.language = headers[b"accept-language"].decode() if self.varies else None
        statement.at, statement.modified = self.fleet.clock.time(), self.validator == "modified"
        self.statements.append(statement)
        self.calls.remove(statement)
        await self._answer(scope, headers, statement, send)

    def _begun(self, scope: Scope, headers: dict[bytes, bytes]) -> Statement:
        return Statement(
            asked_by=headers[b"x-request-id"],
            at=0.0,
            url=scope["query_string"].decode().removeprefix("url="),
            language=None,
            version=0,
            said=Said(),
            partial=False,
            credential=CREDENTIAL[self.mode][0] in headers,
            no_store=headers.get(b"cache-control") == b"no-store",
            number=next(self._numbers),
        )

    def _cache_control(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Never silent where it would be taken to say what it said before (RFC 9111, section 3.2)."""
        updates = scope["method"] == "HEAD" or b"if-none-match" in headers or b"if-modified-since" in headers
        return self.cache_control or ("max-age=10" if updates else "")

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], statement: Statement, send: Send) -> None:
        lines = [(b"x-of", statement.name.encode()), (b"date", formatdate(statement.at, usegmt=True).encode())]
        tag, modified = _tag(statement.name), _modified(statement.name)
        if cache_control := self._cache_control(scope, headers):
            lines.append((b"cache-control", cache_control.encode()))
        if self.varies:
            lines.append((b"vary", b"accept-language"))
        if self.validator == "etag":
            lines.append((b"etag", tag))
        if self.validator == "modified":
            lines.append((b"last-modified", modified))
        body = content(statement.name)
        holds = (self.validator == "etag" and tag in headers.get(b"if-none-match", b"")) or (
            self.validator == "modified" and headers.get(b"if-modified-since") == modified
        )
        if holds:
            await _send(send, 304, lines, b"")
        elif self.ranges and b"range" in headers and scope["method"] == "GET":
            statement.partial = True
            await _send(send, 206, [*lines, (b"content-range", b"bytes 1-3/%d" % len(body))], body[1:4])
        else:
            await _send(send, 200, [*lines, (b"content-length", b"%d" % len(body))], body)

    # ---- steps ----

    async def change(self, **changes: Any) -> None:
        """The handler behaves differently from now on."""
        for name, value in changes.items():
            setattr(self, name, value)

    async def break_(self, status: int | None) -> None:
        """The handler fails from now on; with None, it no longer does."""
        self.fails = status

    async def publish(self) -> None:
        """There is a new version."""
        self.version += 1

    async def tick(self, seconds: int) -> None:
        """Time goes by."""
        self.fleet.clock.tick(seconds)

    async def forget(self) -> None:
        """Memory is empty, as after a restart; the lower tier is not."""
        self.cache.engine.memory.clear()

    async def purge(self, url: str, soft: bool) -> None:
        """Something has changed; what was said before, or is being said now, counts no more."""
        await self.cache.invalidate(url, soft=soft)
        if soft:
            for statement in [*self.statements, *self.calls]:
                statement.soft = statement.soft or statement.url == url
        else:
            self.statements = [statement for statement in self.statements if statement.url != url]
            self.hard |= {id(statement) for statement in self.calls if statement.url == url}

    hard: set[int] = field(default_factory=set)
    """The calls that were under way at a hard invalidation: they answer their own requests and those beside them."""

    async def ask(self, questions: list[Question], meanwhile: list[Step]) -> None:
        """Some requests at the same time; the handler answers none of them before `meanwhile` has happened."""
        self.open.clear()
        self.failed.clear()
        asked = [(question, b"%d" % number, self._begin(question, number)) for number, question in self._ids(questions)]
        await turns(60)
        for question, id_, exchange in asked:
            if exchange.task.done():
                self._check(question, id_, await exchange.reply(), at_once=True)
        waiting = [(question, id_, exchange) for question, id_, exchange in asked if not exchange.task.done()]
        for name, arguments in meanwhile:
            await getattr(self, name)(**arguments)
        self.open.set()
        for question, id_, exchange in waiting:
            try:
                reply = await exchange.reply()
            except RuntimeError:
                assert self.failed, "the handler raised nothing"
            else:
                self._check(question, id_, reply, at_once=False)
                self._note(id_, reply, alone=len(questions) == 1)
        await until(lambda: not self.cache.engine.fills.tasks())
        await written(self.cache)
        self.statements = [statement for statement in self.statements if id(statement) not in self.hard]
        self.hard.clear()

    _serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def _ids(self, questions: list[Question]) -> list[tuple[int, Question]]:
        return [(next(self._serial), question) for question in questions]

    def _begin(self, question: Question, number: int) -> Exchange:
        lines = [(b"accept-language", question.language.encode()), (b"x-request-id", b"%d" % number)]
        if question.directives:
            lines.append((b"cache-control", question.directives.encode()))
        if question.credential:
            lines.append(CREDENTIAL[self.mode])
        if question.condition is not None:
            name = f"{question.url}.{question.language if self.varies else 'any'}.{self.version - question.condition}"
            lines.append((b"if-none-match", _tag(name)))
        if question.part:
            lines.append((b"range", b"bytes=1-3"))
        query = b"url=" + question.url.encode()
        return Exchange(self.app, http_scope("/", method=question.method, query=query, headers=lines))

    def _note(self, id_: bytes, reply: Reply, *, alone: bool) -> None:
        own = [statement for statement in self.statements if statement.asked_by == id_]
        if alone and len(own) == 1 and "; stored" in reply.cache_status:
            own[0].stored = True

    # ---- the verdict ----

    def _check(self, question: Question, id_: bytes, reply: Reply, *, at_once: bool) -> None:
        described = f"{question} at {self.fleet.clock.time()}: {reply.messages}\nsaid: {self.statements}"
        if reply.status == 504 and REQUESTS[question.directives].only_if_cached and self.mode != "explicit":
            return
        if reply.status >= 500:
            assert self.failed, f"an error that is not the handler's; {described}"
            return
        lines = dict(reply.messages[0]["headers"])
        name = lines[b"x-of"].decode()
        self._check_form(question, reply, name, described)
        permitting = [
            statement
            for statement in self.statements
            if statement.name == name and (statement.asked_by == id_ or self._permits(statement, question))
        ]
        assert permitting, f"nothing permits it; {described}"
        if at_once and not question.part:
            chosen = permitting[-1]
            latest = max((s.number for s in self.statements if self._goes_before(s, chosen, question)), default=0)
            assert chosen.number >= latest, f"there is a later one; {described}"

    def _goes_before(self, statement: Statement, chosen: Statement, question: Question) -> bool:
        """Whether it would be chosen if it is later. What varies stays before what does not (RFC 9111, section 4.1)."""
        comparable = chosen.language is None or statement.language is not None
        return statement.stored and comparable and self._answers(statement, question)

    def _check_form(self, question: Question, reply: Reply, name: str, described: str) -> None:
        url, language, _ = name.split(".")
        assert url == question.url, f"another URL's; {described}"
        assert language in ("any", question.language), f"another variant; {described}"
        whole = content(name)
        if reply.status == 304:
            assert question.condition is not None, described
        elif reply.status == 206:
            assert question.part, described
            assert reply.body == whole[1:4], described
        elif question.method == "GET":
            assert (reply.status, reply.body) == (200, whole), described

    def _answers(self, statement: Statement, question: Question) -> bool:
        return statement.url == question.url and statement.language in (None, question.language)

    def _permits(self, statement: Statement, question: Question) -> bool:
        said, explicit = statement.said, self.mode == "explicit"
        if said.never or not self._answers(statement, question) or (explicit and said == RESPONSES["no-cache"]):
            return False
        if statement.partial and (explicit or not question.part or statement.language is not None):
            return False
        if statement.no_store and not explicit:
            return False
        if statement.credential or question.credential:
            shared = said.public or (said.must and said.lifetime != 0 and self.mode == "rfc9111")
            if explicit or not shared:
                return False
        if self.mode == "http" and said.lifetime is None:
            return False
        return self._may_be_used(statement, Asked() if explicit else REQUESTS[question.directives])

    def _may_be_used(self, statement: Statement, asked: Asked) -> bool:
        said, age = statement.said, self.fleet.clock.time() - statement.at
        explicit = self.mode == "explicit"
        lifetime = 10 if explicit else said.lifetime or 0
        if self.mode == "rfc9111" and said.lifetime is None and statement.modified:
            lifetime = 86_400  # a guess, for what was modified years ago (section 4.2.2)
        must = said.must and not (explicit and said.public)  # `s-maxage` gives no lifetime under an explicit policy
        staleness = age - lifetime
        accepts = not asked.no_cache and age <= asked.max_age
        accepts = accepts and (not asked.min_fresh or lifetime - age >= asked.min_fresh)
        in_place_of_an_error = bool(self.failed) and not asked.no_cache
        if staleness < 0:
            return accepts or in_place_of_an_error
        if must:
            return False
        if in_place_of_an_error and staleness <= self._in_place_of_errors(said):
            return True
        if asked.max_stale is not None:
            return accepts and staleness <= asked.max_stale
        return accepts and asked.max_age == math.inf and said.revalidate > 0 and staleness <= said.revalidate

    def _in_place_of_errors(self, said: Said) -> float:
        if said.error is not None:
            return said.error
        return -1 if self.mode == "explicit" else 3_600 + said.revalidate


async def _send(send: Send, status: int, lines: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _modified(name: str) -> bytes:
    """Another second for each representation, long ago."""
    return formatdate(1_500_000_000 + zlib.crc32(name.encode()) % 100_000_000, usegmt=True).encode()


def _tag(name: str) -> bytes:
    return b'"%b"' % name.encode()


Arguments = st.SearchStrategy[dict[str, Any]]

URLS = st.sampled_from(["a", "a", "a", "a", "b"])
QUESTIONS = st.builds(
    Question,
    url=URLS,
    language=st.sampled_from(["en", "en", "en", "de"]),
    method=st.sampled_from(["GET"] * 5 + ["HEAD"]),
    directives=st.sampled_from([""] * 8 + list(REQUESTS)),
    credential=st.sampled_from([False] * 4 + [True]),
    condition=st.sampled_from([None] * 6 + [0, 1]),
    part=st.sampled_from([False] * 5 + [True]),
)
MODES = {
    "cache_control": st.sampled_from(list(RESPONSES)),
    "varies": st.booleans(),
    "validator": st.sampled_from(["etag", "etag", "modified", "none"]),
    "ranges": st.booleans(),
}
CHANGES = st.sampled_from(list(MODES)).flatmap(lambda name: st.fixed_dictionaries({name: MODES[name]}))
EVENTS: dict[str, Arguments] = {
    "change": CHANGES,
    "break_": st.fixed_dictionaries({"status": st.sampled_from([None, 0, 503])}),
    "publish": st.just({}),
    "purge": st.fixed_dictionaries({"url": URLS, "soft": st.booleans()}),
    "forget": st.just({}),
    "tick": st.fixed_dictionaries({"seconds": st.sampled_from([1, 3, 6, 11, 30])}),
}


def _one_of(names: list[str], steps: dict[str, Arguments]) -> st.SearchStrategy[Step]:
    """One of the steps named; more often what is named more often."""
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), steps[name]))


MEANWHILE: st.SearchStrategy[list[Step]] = st.one_of(
    st.just([]), st.lists(_one_of(["break_", "purge", *EVENTS], EVENTS), min_size=1, max_size=3)
)
ASK: Arguments = st.fixed_dictionaries(
    {"questions": st.lists(QUESTIONS, min_size=1, max_size=3), "meanwhile": MEANWHILE}
)
STEPS = st.lists(_one_of(["ask"] * 8 + ["tick"] * 2 + list(EVENTS), {"ask": ASK, **EVENTS}), min_size=8, max_size=30)


@pytest.mark.parametrize("mode", list(POLICIES))
@given(handler=st.fixed_dictionaries(MODES), steps=STEPS)
def test_no_answer_that_nothing_permits(mode: str, handler: dict[str, Any], steps: list[Step]) -> None:
    async def test() -> None:
        world = World(mode, **handler)
        for name, arguments in steps:
            await getattr(world, name)(**arguments)
        await world.cache.aclose()

    run(test())
