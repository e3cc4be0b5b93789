"""What does not change between the requests of one route."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import parse_qsl

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.tags import key_tag, path_tag, route_tag, site_tag, user_tag
from asgi_tiercache.keys.request import RequestKey, RequestKeys
from asgi_tiercache.keys.template import Template
from asgi_tiercache.middleware.variants import Variants
from asgi_tiercache.routes import Target
from asgi_tiercache.signals import Answered

logger = logging.getLogger("asgi_tiercache")

IDLE_AFTER = 4
REPORTED = 16
WATCHED_REQUESTS = 100
_CREDENTIALS = ("authorization", "cookie", "session", "user", "auth", "tls")
_DIRECTING = frozenset({b"cache-control", b"pragma"})
_STATING = frozenset({b"cache-control", b"cdn-cache-control", b"expires"})
_VALIDATORS = frozenset({b"etag", b"last-modified"})
_ADVICE = "key it (vary_on=, cookies=, user=) or declare it irrelevant (ignore=)"


class Route:
    """A target of the route table with its policy put to use: keys, place in L1, tags."""

    def __init__(self, engine: Engine, target: Target, *, namespace: str) -> None:
        assert target.policy is not None
        policy = target.policy
        self.target = target
        self.policy = policy
        self.name = target.template or "(unrouted)"
        self.explicit = policy.mode == "explicit"
        self.minds_who_asks = policy.mode == "http"
        """Whether what the handler says to somebody with credentials is for others only where it says so itself."""
        self.honours_requests = not self.explicit and policy.request_directives
        self.runs_dependencies = policy.dependencies == "always"
        self.answers_at_once = not self.runs_dependencies and not policy.verify
        """Whether what L1 holds may answer a request without a further question."""
        keyed = policy
        if self.runs_dependencies:
            # The dependencies see the real request on hits, too: a credential is theirs to judge.
            mine = (*policy.vary_on, *(("cookie",) if policy.cookies else ()))
            keyed = policy.but(ignore=(*policy.ignore, *(name for name in _CREDENTIALS if name not in mine)))
        self.keys = RequestKeys(keyed, namespace=namespace, credentials=target.credentials, memos=engine.memos)
        self.speaking = _DIRECTING | self.keys.credentials
        """The request fields without any of which a request in HTTP mode demands nothing."""
        self.place = engine.place(policy)
        self.bucket = self.place.bucket
        self.variants = Variants(engine, self.place, self.keys.varies)
        self._templates = tuple(Template(text) for text in policy.tags)
        self._only_responses_decide = not self.explicit and policy.ttl is None and not policy.status_ttl
        self.guards_state = self.explicit and policy.strict and policy.user is None and policy.key is None
        """Whether what middleware above has put into `request.state` keeps a request from the cache."""
        self.proven = self.explicit or not self._only_responses_decide
        """Whether a response of the route could be stored: only then is one worth waiting for."""
        self.validates = self.explicit or policy.downstream == "keep"
        """Whether the handler may be asked if what is stored still holds.

        Not where the response's own word on its freshness was replaced.
        """
        self.telling = _STATING | (_VALIDATORS if policy.mode == "rfc9111" else frozenset())
        """The response fields without any of which nothing is stored."""
        self.idle = False
        """Whether the last responses gave nothing to store, on a route where only responses decide.

        Such a route is not looked up; one response that may be stored ends that.
        """
        self._unstored = 0
        self._hits = 0
        self._lower_hits: dict[str, int] = {}
        self._glances = 0
        self.looks_ahead = policy.refresh_ahead
        self._ahead = engine.ahead if policy.refresh_ahead else None
        self._clock = engine.clock
        self._signals = engine.signals
        self._seen = 0
        self._passed: dict[str, int] | None = {}

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.policy.mode}>"

    # ---- tags ----

    def tags(self, path_params: Mapping[str, object], key: RequestKey) -> tuple[str, ...]:
        """The tags of the policy for one request, and the implicit ones.

        A template whose parameter the request does not carry gives no tag: there is nothing that it could name.
        """
        rendered = self._rendered(path_params, key) if self._templates else ()
        implicit = (key_tag(key.text), path_tag(key.path), site_tag(key.site, key.path), route_tag(self.name))
        return (*rendered, *implicit, *((user_tag(key.user),) if key.user is not None else ()))

    def _rendered(self, path_params: Mapping[str, object], key: RequestKey) -> tuple[str, ...]:
        query = dict(parse_qsl(key.query.decode("latin-1"), keep_blank_values=True))
        values = {**query, **path_params}
        return tuple(tag for tag in (template.render(values) for template in self._templates) if tag is not None)

    # ---- what the route's recent responses were like ----

    def saw_storable(self) -> None:
        """A response of the route could be stored."""
        self._unstored = 0
        self.idle = False
        self.proven = True

    def saw_unstorable(self) -> None:
        """A response of the route could not be stored."""
        self._unstored += 1
        self.idle = self._unstored >= IDLE_AFTER and self._only_responses_decide

    def saw_failure(self) -> None:
        """The handler failed: what is stored of other responses of the route is looked for again, being of use now."""
        self._unstored = 0
        self.idle = False

    def hit(self, started: float, key: str) -> None:
        """Count an answer from L1 to a request that arrived at `started`; they are reported by sixteens."""
        self._hits += 1
        if self._ahead is not None:
            self._ahead.seen(key)
        if self._passed is not None:
            self.count()
        if self._hits >= REPORTED:
            self.report(self._clock.monotonic() - started)

    def asked_for(self, key: str) -> None:
        """A request for `key` was not answered from the cache: it belongs to the rhythm in which that is asked for."""
        if self._ahead is not None:
            self._ahead.seen(key)

    def glanced_at(self) -> None:
        """Count an answer of the handler, on an idle route; reported likewise."""
        self._glances += 1
        if self._glances >= REPORTED:
            self.report()

    def report(self, seconds: float = 0.0) -> None:
        """Tell of the answers that no signal has told of yet; `seconds`: how long the last hit took."""
        hits, self._hits = self._hits, 0
        if hits:
            self._signals.emit(Answered(self.name, "hit", "L1", seconds, hits))
        for tier, count in self._lower_hits.items():
            if count:
                self._signals.emit(Answered(self.name, "hit", tier, 0.0, count))
                self._lower_hits[tier] = 0
        glances, self._glances = self._glances, 0
        if glances:
            self._signals.emit(Answered(self.name, "miss", "no-freshness", 0.0, glances))

    def hit_below(self, tier: str, started: float, key: str) -> None:
        """Count an answer from elsewhere in the cache; the first is reported at once, the rest by sixteens."""
        if self._ahead is not None:
            self._ahead.seen(key)
        if self._passed is not None:
            self.count()
        if not self.proven or self._unstored:
            self.saw_storable()
        count = self._lower_hits.get(tier, REPORTED - 1) + 1
        if count >= REPORTED:
            seconds = self._clock.monotonic() - started
            self._signals.emit(Answered(self.name, "hit", tier, seconds, count if tier in self._lower_hits else 1))
            count = 0
        self._lower_hits[tier] = count

    def passed_by(self, reason: str) -> None:
        """Count a request that passed by; says once in the log if most of the route's requests do."""
        if self._passed is None:
            return
        self._passed[reason] = self._passed.get(reason, 0) + 1
        self.count()

    def count(self) -> None:
        """Count a request that did not pass by, or that `passed_by` has counted."""
        if self._passed is None:
            return
        self._seen += 1
        if self._seen < WATCHED_REQUESTS:
            return
        if 2 * sum(self._passed.values()) > self._seen:
            reason = max(self._passed, key=self._passed.__getitem__)
            known = reason in _CREDENTIALS or reason.encode() in self.keys.credentials
            advice = _ADVICE if known else "see the reason in Cache-Status"
            logger.warning("most requests of route %r pass by uncached because of %r: %s", self.name, reason, advice)
        self._passed = None
