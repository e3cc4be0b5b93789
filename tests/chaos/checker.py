"""What every answer must hold to: its bytes, whose it is, how old it may be; by `docs/consistency.md`, no laxer."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.bodies import ITEMS, body_of, etag_of, partner, zipped
from tests.chaos.client import Response
from tests.chaos.kinds import KINDS, MAX_LAG, MAX_UNVERIFIED, SLEEPY
from tests.chaos.timeline import Timeline

SETTLED = 8.0
"""Seconds after which every receipt has come of an invalidation that was under way, though a worker be stopped."""
SLACK = 1.0
"""Seconds that an answer may be older than its lifetime, beyond what its handler and a stopped process took."""


@dataclass(slots=True)
class Asked:
    """A request, as it was sent."""

    kind: str
    item: int
    method: str
    target: str
    headers: dict[str, str]
    said: dict[str, Any]
    """What its answer must say of itself."""
    worker: int
    body: bytes = b""
    began: float = 0.0
    newest: list[int] = field(default_factory=list)
    """The versions when it was sent, of each item that it tells of."""

    @property
    def items(self) -> list[int]:
        """Those that its answer tells of."""
        return [self.item, partner(self.item)] if self.kind in ("nested", "direct") else [self.item]

    @property
    def user(self) -> str | None:
        """Whose answer it is, where `invalidate_user` reaches it."""
        user: str | None = self.said.get("user")
        return user.removeprefix("Bearer ") if user and self.kind == "user" else None

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.headers} at worker {self.worker}"


@dataclass(frozen=True, slots=True)
class Told:
    """What `Cache-Status` says."""

    hit: bool
    ttl: int | None
    detail: str
    text: str

    @classmethod
    def of(cls, response: Response) -> Told:
        """Read it."""
        text = response.headers.get("cache-status", "")
        ttl, detail = re.search(r"ttl=(-?\d+)", text), re.search(r"detail=([^;,]+)", text)
        return cls("; hit" in text, int(ttl[1]) if ttl else None, detail[1] if detail else "", text)

    @property
    def unmarked(self) -> bool:
        """Whether, by what it says, the log has confirmed it: it is neither unverified nor stale."""
        return "unverified" not in self.detail and "stale" not in self.detail


@dataclass(frozen=True, slots=True)
class Promise:
    """An invalidation that has returned: no version below may be read any more, in time."""

    at: float
    version: int
    worker: int
    life: str
    """The process that made it, at which it holds at once."""
    durable: bool
    user: str | None = None


@dataclass(slots=True)
class _Read:
    asked: Asked
    told: Told
    life: str
    versions: list[int]
    strict: bool


class Checker:
    """Judges answers: their bytes at once, their age once all that was promised before they began is known.

    Args:
        timeline: What was done to whom, and when.
        settled: Seconds after which every receipt has come of an invalidation that was under way.
    """

    def __init__(self, timeline: Timeline, settled: float = SETTLED) -> None:
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self._timeline = timeline
        self._settled = settled
        self._promises: dict[tuple[str, int], list[Promise]] = {}
        self._reads: deque[_Read] = deque()

    # ---- promises ----

    def promise(self, kinds: frozenset[str], versions: dict[int, int], promise: Promise) -> None:
        """From `promise.at` on, `versions` of items bind reads of `kinds`."""
        for item, version in versions.items():
            bound = Promise(promise.at, version, promise.worker, promise.life, promise.durable, promise.user)
            for kind in kinds:
                self._promises.setdefault((kind, item), []).append(bound)

    # ---- answers ----

    def check(self, asked: Asked, response: Response, newest: list[int]) -> None:
        """Judge a response that has come whole; `newest` are the versions now."""
        told = Told.of(response)
        self.counts["answers"] += 1
        wrong = self._wrong_status(asked, response)
        if wrong is None and self._has_content(asked, response):
            versions = [int(each) for each in response.headers["x-versions"].split(",")]
            wrong = self._wrong_bytes(asked, response, versions) or self._wrong_age(asked, response, told)
            if any(version > now for version, now in zip(versions, newest, strict=True)):
                wrong = wrong or f"version {versions} of the future: {newest}"
            life = response.headers.get("x-life", "")
            strict = told.unmarked and "x-unverified" not in response.headers
            self._reads.append(_Read(asked, told, life, versions, strict))
        if wrong is not None:
            self.found(f"{wrong}; {asked}; status {response.status}; {told.text!r}", asked.began)

    def found(self, what: str, at: float | None = None) -> None:
        """Something was wrong."""
        at = time.monotonic() if at is None else at
        self.violations.append(f"{what}\n      around then: {self._timeline.near(at)}")

    def settle(self, *, all_of_it: bool = False) -> None:
        """Judge the age of what was read long enough ago."""
        until = time.monotonic() - (0 if all_of_it else self._settled)
        while self._reads and self._reads[0].asked.began < until:
            self._judge(self._reads.popleft())

    # ---- one answer ----

    @staticmethod
    def _has_content(asked: Asked, response: Response) -> bool:
        return asked.method != "PUT" and response.status in (200, 206, 304, 404)

    def _wrong_status(self, asked: Asked, response: Response) -> str | None:
        status = response.status
        if status >= 500:
            return self._wrong_error(asked, response)
        expected = {
            "PUT": status == 204,
            "HEAD": status == 200 or (status == 404 and asked.kind == "maybe"),
        }.get(asked.method)
        if expected is None:
            expected = (
                status == 200
                or (status == 404 and asked.kind == "maybe")
                or (status in (206, 416) and "range" in asked.headers)
                or (status == 304 and "if-none-match" in asked.headers)
            )
        return None if expected else f"status {status}"

    def _wrong_error(self, asked: Asked, response: Response) -> str | None:
        if "x-expected" in response.headers:
            self.counts["planned 5xx"] += 1
            return None
        slow = asked.item % SLEEPY == 0 or self._timeline.stopped(asked.worker, asked.began - 2, time.monotonic()) > 0
        if response.status == 504 and asked.kind == "timed" and slow:
            self.counts["504 of hard_timeout"] += 1
            return None
        return f"unexpected {response.status}: {response.body[:200]!r}"

    @staticmethod
    def _wrong_bytes(asked: Asked, response: Response, versions: list[int]) -> str | None:
        body = body_of(asked.said, versions, KINDS[asked.kind].size)
        if asked.said.get("encoding"):
            if response.headers.get("content-encoding") != "gzip" and response.status == 200:
                return "not gzip"
            body = zipped(body)
        if response.headers.get("etag") != etag_of(body):
            return f"the ETag of something else: {_said(response)}"
        if response.status == 206:
            return _wrong_part(response, body)
        if response.status == 304 or asked.method == "HEAD":
            length = response.headers.get("content-length")
            return f"length {length}, not {len(body)}" if length not in (None, str(len(body))) else None
        if response.body != body:
            return f"wrong body: {_said(response)}, {len(response.body)} bytes, not {len(body)}"
        return None

    def _wrong_age(self, asked: Asked, response: Response, told: Told) -> str | None:
        """What is older than lifetime and policy let it be; nested values have ages of their own."""
        kind = KINDS[asked.kind]
        if not told.hit or "x-made" not in response.headers:
            return None
        made = float(response.headers["x-made"])
        stale = "stale" in told.detail
        if stale and kind.stale == 0 and told.ttl is not None and told.ttl < 0:
            return "stale, which this policy does not permit"
        if stale and kind.stale is None:
            return None
        allowed = kind.ttl + (kind.stale or 0) * stale + kind.slow + SLACK
        allowed += self._timeline.stopped(None, made, asked.began)
        age = asked.began - made
        return f"{age:.2f} s old, at most {allowed:.2f} s" if age > allowed else None

    # ---- what was promised ----

    def _judge(self, read: _Read) -> None:
        asked = read.asked
        for number, (item, version) in enumerate(zip(asked.items, read.versions, strict=True)):
            self.counts["versions judged"] += 1
            if KINDS[asked.kind].binding == "never":
                must, why = asked.newest[number], "never cached"
            else:
                must, why = self._must(read, item)
            if version < must:
                self.found(
                    f"version {version} of item {item}, must be {must} at least ({why}); {asked};"
                    f" {read.told.text!r}; process {read.life}",
                    asked.began,
                )

    def _must(self, read: _Read, item: int) -> tuple[int, str]:
        """The least version that may be read, and why."""
        must, why = 0, ""
        for promise in reversed(self._promises.get((read.asked.kind, item), ())):
            if promise.version <= must or (promise.user is not None and promise.user != read.asked.user):
                continue
            if self._binds(promise, read):
                ago = read.asked.began - promise.at
                must, why = promise.version, f"invalidated {ago:.3f} s before by {promise.life}, {promise.durable=}"
        return must, why

    def _binds(self, promise: Promise, read: _Read) -> bool:
        began = read.asked.began
        if promise.life == read.life:
            return promise.at < began
        if not promise.durable:
            return False
        binding = KINDS[read.asked.kind].binding
        lag = {"verify": 0.0, "bypass": MAX_LAG}.get(binding)
        if lag is None:
            reached = read.strict or not self._timeline.touched(read.asked.worker, promise.at, began)
            lag = MAX_LAG if reached else MAX_LAG + MAX_UNVERIFIED
        return promise.at + lag < began


def _wrong_part(response: Response, body: bytes) -> str | None:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("content-range", ""))
    if match is None:
        return "a part without its place"
    first, last, whole = map(int, match.groups())
    if whole != len(body) or response.body != body[first : last + 1]:
        return f"wrong part {first}-{last}/{whole} of {len(body)}: {response.body[:100]!r}"
    return None


def _said(response: Response) -> str:
    """What a body says of itself."""
    try:
        return str(json.loads(response.body.split(b"\n", 1)[0]))
    except ValueError:
        return repr(response.body[:100])


assert ITEMS > SLEEPY
