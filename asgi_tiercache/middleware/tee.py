"""The tee: watches the messages of one response, and keeps it if it may be kept."""

from __future__ import annotations

from os import PathLike

import anyio.to_thread
from starlette.types import Message, Scope

from asgi_tiercache.codec.entries import MAX_FIELDS, MAX_LINES
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.entries import TOO_MANY_KEYS
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import group_tags, too_many
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.conditional import NOT_MODIFIED
from asgi_tiercache.http.etag import generated_etag
from asgi_tiercache.http.fields import OCTETS, octets_of, storable_headers, values, well_formed, with_downstream
from asgi_tiercache.http.ranges import PARTIAL_CONTENT, completed, parse_content_range
from asgi_tiercache.http.storing import OF_ONE_REQUEST, Refuse, Store, judge_response
from asgi_tiercache.http.validation import is_part_of, own_headers, updated_by_one
from asgi_tiercache.http.vary import is_misspelled
from asgi_tiercache.keys.request import RequestKey
from asgi_tiercache.middleware.request import Request, part_of
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.middleware.validating import ValidatingApp
from asgi_tiercache.tiers.leases import WITHOUT, Ended, Lease
from asgi_tiercache.types import Entry, Flag

CACHE_STATUS = b"cache-status"
STREAM_SECONDS = 30.0
"""How long a response may take from its start to its end and still be waited for by others."""
_MOST_DIGITS = 18
_NO_CONTENT = 204
_SMALL = 4_096
"""Bytes below which a chunk is joined to the one before: each costs an object of its own."""
_SAYING_NOTHING = frozenset({"incomplete", "conditional", "stale", "dependencies"})
"""Reasons not to store a response that say nothing of what is stored."""
_DESCRIBING = frozenset(
    {b"cache-control", b"date", b"etag", b"expires", b"last-modified", b"link", b"location", b"vary"}
)


class Tee:
    """Looks at each message on its way to the client; holds nothing back.

    `refusal` is set as soon as the response turns out not to be storable; `entry` as soon as it is complete, and stored
    if there is room for it.

    Args:
        engine: Stores.
        route: The route that was chosen.
        request: The request.
        fill: What is known of the fill that runs.
        scope: What the app is given.
        forwarded: Why the request came to the handler, for `Cache-Status`.
        collapsed: False if the request waited for another one's response in vain.
        validation: Answers in the handler's place where that has nothing new to say, or fails.
        partial: The handler was asked for a part.
        known: Something is stored already for this request: the response takes its place.
        lease: Ends once other workers find the response, or it is clear that they never will.
    """

    def __init__(
        self,
        engine: Engine,
        route: Route,
        request: Request,
        fill: Fill,
        scope: Scope,
        *,
        forwarded: str = "uri-miss",
        collapsed: bool | None = None,
        validation: ValidatingApp | None = None,
        partial: bool = False,
        known: bool = False,
        lease: Lease = WITHOUT,
    ) -> None:
        self._engine = engine
        self._route = route
        self._request = request
        self.status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._asked = engine.clock.monotonic()
        self._started = self._asked
        self._declared: int | None = None
        self._own_tags: tuple[str, ...] | None = None
        self._shared_name = request.demands.shared_name(fill.key)
        self._scope = scope
        self._had_session = bool(request.scope.get("session"))
        self._forwarded = forwarded
        self._collapsed = collapsed
        self._validation = validation
        self._partial = partial
        self._known = known
        self._lease = lease
        self._contradicted: Entry | None = None
        self.fill = fill
        self.refusal: str | None = None
        self.entry: Entry | None = None
        self.admitted = True
        """Whether there is room for the response; if not, `entry` is for those who wait for it."""
        self.stand_in: Entry | None = None
        """The stored response that is the answer because the handler failed."""
        self.failing = False
        """Whether the response is an error that all who wait will be given, and has not come to its end."""
        self.failure: Entry | None = None
        """Such an error, complete; it is stored nowhere."""

    async def see(self, message: Message) -> Message:
        """Take note of `message`; returns what the client is to receive."""
        kind = message["type"]
        if kind == "http.response.start" and not self.status:
            return self._start(message)
        if self.refusal is None and self.entry is None:
            if kind == "http.response.start" or (kind == "http.response.body" and not self.status):
                self.refuse("malformed")  # not in its turn; what becomes of it is for the server to say
            elif kind == "http.response.body":
                self._body(message.get("body", b""), more=message.get("more_body", False))
            elif kind == "http.response.pathsend":
                await self._file(message.get("path"))
            else:
                self.refuse(kind.removeprefix("http.response."))
            if self._contradicted is not None:
                whole, self._contradicted = self._contradicted, None
                await self._engine.make_stale(self._route.place, self.fill.key, whole)
        elif self.failing:
            self._fail(message)
        return message

    def refuse(self, reason: str) -> None:
        """The response will not be stored, and its like need not be waited for.

        Unless it is an error that may pass, or what dependencies say of one request and perhaps not of the next.
        """
        self.abandon(reason)
        if not self.is_passing and not self._route.runs_dependencies:
            self._engine.unshareable.remember(self._shared_name, self._engine.clock.monotonic())

    def abandon(self, reason: str = "incomplete") -> None:
        """Give up what has not come to its end; nothing that is stored is affected."""
        if self.refusal is None and self.entry is None:
            self.refusal = reason
            self._chunks.clear()
            self._lease.end(Ended.NOTHING)

    @property
    def reason(self) -> str:
        """Why the response is not stored, as far as is known; empty if it is."""
        return self.refusal or ("" if self.admitted else TOO_MANY_KEYS)

    @property
    def is_passing(self) -> bool:
        """Whether the next response may well be another: an error may pass; a 304 and a part answer what one client has
        asked for, which may also be that nothing is stored.
        """
        asked_for = self.status == NOT_MODIFIED or self._partial or self._request.demands.directives.no_store
        return self.status >= 500 or asked_for

    @property
    def supersedes(self) -> bool:
        """Whether the response, which is not stored, shows that what is stored does not hold any more."""
        of_this_one = self.status in OF_ONE_REQUEST and not self._route.explicit
        says_nothing = self.status >= 500 or of_this_one or self.refusal in _SAYING_NOTHING
        of_the_request = self._request.demands.directives.no_store or self._partial
        return self.entry is None and self.stand_in is None and not says_nothing and not of_the_request

    def tags(self) -> tuple[str, ...]:
        """The tags of the response as far as they are known: its own, the handler's, those of what the handler read,
        and its groups.
        """
        if self._own_tags is None:
            self._own_tags = self._route.tags(self._request.path_params, self._request.key)
        validated = self._validation.validated if self._validation is not None else None
        kept = () if validated is None else validated.tags  # nobody need have said them again
        return tuple(dict.fromkeys((*self._own_tags, *self.fill.tags, *group_tags(self._headers), *kept)))

    # ---- the start ----

    def _start(self, message: Message) -> Message:
        self._started = self._engine.clock.monotonic()
        status, headers = message.get("status"), octets_of(message.get("headers", ()))
        if headers is None or not isinstance(status, int):
            self.refuse("malformed")  # some servers take it all the same
            return message
        self.status, self._headers = status, headers
        if self._validation is not None and self._validation.stood_in is not None:
            return self._stand_in(message, self._validation.stood_in)
        verdict = self._unfit() or self._judge()
        if isinstance(verdict, str):
            self.refuse(verdict)
            self.fill.failed = self.status >= 500
            self.failing = self._is_for_all(verdict) and not message.get("trailers", False)
        elif message.get("trailers", False):
            self.refuse("trailers")
        else:
            self._check_length()
            self.admitted = self.refusal is not None or self._is_admitted(verdict)
        return {**message, "headers": self._told()}

    def _is_admitted(self, verdict: Store) -> bool:
        if self._known:
            return True
        request, route = self._request, self._route
        key = route.variants.key_of(request.key, request.scope, verdict.vary)
        return self._engine.admits(route.place, key, verdict.lifetime + verdict.retention, route.name)

    def _is_for_all(self, refusal: str) -> bool:
        """Whether the response is an error that the next one who asks would be given, too.

        Under an explicit policy nothing reaches the handler that the key does not tell. Elsewhere it may speak of
        whoever asked, and says nothing of being shared.
        """
        if self.status < 500 or refusal != "status" or not self._route.explicit or self._route.runs_dependencies:
            return False
        return not values(self._headers, b"set-cookie") and not values(self._headers, b"vary")

    def _fail(self, message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or not isinstance(body, OCTETS):
            self.failing = False
            return
        self._size += len(body)
        if self._size > self._route.policy.max_body:
            self.failing = False
            return
        self._keep(bytes(body))
        if not message.get("more_body", False):
            self.failing = False
            declared = set(values(self._headers, b"content-length"))
            if declared and declared != {b"%d" % self._size}:
                return  # a server may cut the connection, which is for who asked alone
            self.failure = self._made(Store(lifetime=0.0, age=0.0, shared=False, vary=()))
            self.failure.born = self._engine.clock.monotonic()

    def _stand_in(self, message: Message, stored: Entry) -> Message:
        """The start of a response that was stored before, and is neither stored again nor anything new."""
        self.abandon("stale")
        self.stand_in = stored
        self.fill.failed = True
        age = int(max(0.0, self._engine.clock.monotonic() - stored.born))
        status = self._validation.status if self._validation is not None else None
        told = cache_status.forward(
            self._forwarded, fwd_status=status, collapsed=self._collapsed, detail="stale-if-error"
        )
        return {**message, "headers": [*stored.headers, (b"age", b"%d" % age), (CACHE_STATUS, told)]}

    def _judge(self) -> Store | str:
        """How the response may be stored, or why not."""
        request = self._request
        if self.fill.refused or self._session_changed():
            return "no-store" if self.fill.refused else "session"
        verdict = judge_response(
            self._route.policy,
            self.status,
            self._headers,
            credentialed=request.demands.credentialed,
            request_no_store=request.demands.directives.no_store,
            set_ttl=self.fill.ttl,
            response_delay=self._started - self._asked,
            now=self._engine.clock.time(),
        )
        if isinstance(verdict, Refuse):
            return verdict.reason
        if not self._ran_the_chosen_route():
            return "other-route"
        if self._route.runs_dependencies and not self.fill.reached:
            return "dependencies"  # or middleware: they have refused this request, and may let the next one pass
        return self._obstacle(verdict) or verdict

    def _obstacle(self, verdict: Store) -> str | None:
        """What keeps us from storing a response that may be stored."""
        if verdict.partial and (not self._partial or verdict.vary):
            return "partial"  # nobody asked for a part; and of parts there are no variants
        if self._partial and self.status not in (200, PARTIAL_CONTENT):
            return "range"  # it may speak of the range alone, and would answer those who ask for no part
        if too_many(self.tags()):
            return "too-many-tags"
        if verdict.vary and is_misspelled(verdict.vary, self._scope["headers"]):
            return "vary"
        return None

    def _ran_the_chosen_route(self) -> bool:
        """Whether the router came to the route whose policy this is, as far as it tells; a rewriting middleware
        between may have led it elsewhere.
        """
        chosen, ran = self._route.target.endpoint, self._scope.get("endpoint")
        return chosen is None or ran is None or ran == chosen

    def _session_changed(self) -> bool:
        """Whether the handler began or changed a session that middleware above will put into a cookie."""
        session = self._request.scope.get("session")
        return bool(getattr(session, "modified", False) or (session and not self._had_session))

    def _unfit(self) -> str | None:
        """Why the field lines cannot be stored, whatever they say; of too many, or too long ones, nothing is read."""
        headers = self._headers
        if len(headers) > MAX_FIELDS or sum(len(name) + len(value) + 2 for name, value in headers) > MAX_LINES:
            return "headers-too-large"
        if not well_formed([name for name, _ in headers], [value for _, value in headers]):
            return "malformed"  # some servers write line ends as they are, for the one who asked; not for others
        return None

    def _check_length(self) -> None:
        declared = set(values(self._headers, b"content-length"))
        if declared:
            length = declared.pop()
            if declared or not length.isdigit() or len(length) > _MOST_DIGITS:  # `int` would take signs, too
                return self.refuse("content-length")
            self._declared = int(length)
        if (self._declared or 0) > self._route.policy.max_body:
            self.refuse("too-large")
        if any(value.startswith(b"text/event-stream") for value in values(self._headers, b"content-type")):
            self.refuse("event-stream")

    def _told(self) -> list[tuple[bytes, bytes]]:
        """The field lines that the client receives. Nobody promises to store what may still grow too large."""
        told = list(self._headers)
        if self.refusal is None:
            told = list(with_downstream(self._headers, self._route.policy.downstream))
        stored = self.refusal is None and self._declared is not None and self.admitted
        validation = self._validation
        status = validation.status if validation is not None and validation.validated is not None else None
        line = cache_status.forward(
            self._forwarded, fwd_status=status, stored=stored, collapsed=self._collapsed, detail=self.reason
        )
        told.append((CACHE_STATUS, line))
        return told

    # ---- the body ----

    def _body(self, content: object, *, more: bool) -> None:
        if not isinstance(content, OCTETS):
            return self.refuse("malformed")
        chunk = bytes(content)
        self._size += len(chunk)
        if self.fill.refused:
            return self.refuse("no-store")  # at once: others may be receiving it
        if more and self._engine.clock.monotonic() - self._started > STREAM_SECONDS:
            return self.refuse("too-slow")
        if self._size > self._route.policy.max_body:
            return self.refuse("too-large")
        self._keep(chunk)
        if not more:
            self._complete()

    def _keep(self, chunk: bytes) -> None:
        chunks = self._chunks
        if not chunks or len(chunk) >= _SMALL:
            chunks.append(chunk)
        elif isinstance(chunks[-1], bytearray):
            chunks[-1] += chunk
        elif chunk:
            chunks.append(bytearray(chunk))

    async def _file(self, path: object) -> None:
        limit = min(self._route.policy.files, self._route.policy.max_body)
        body = None
        # A number would be an open file of the process's, which reading it would close. And what a server makes of a
        # file after part of a body is for it to say.
        if limit and not self._size and isinstance(path, str | PathLike):
            body = await anyio.to_thread.run_sync(_read_small, path, limit)
        if body is None:
            return self.refuse("pathsend")
        self._body(body, more=False)

    def _complete(self) -> None:
        if self._declared is not None and self._declared != self._size:
            return self.refuse("incomplete")
        if self._size and self.status == _NO_CONTENT:
            return self.refuse("malformed")
        verdict = self._judge()  # again: the handler may have spoken since the response began
        if isinstance(verdict, str):
            return self.refuse(verdict)
        entry, key = self._made(verdict), self._request.key
        if verdict.partial:
            if parse_content_range(entry.headers, self._size) is None:
                return self.refuse("incomplete")
            key = self._completed(entry)
        variants, scope = self._route.variants, self._request.scope
        store = variants.keep if self.admitted else variants.give
        store(entry, key, scope, verdict.vary, lease=self._lease, fill=self.fill)
        self._engine.unshareable.forget(self._shared_name)
        self.entry = entry

    def _completed(self, part: Entry) -> RequestKey:
        """Where a part is stored: as the whole, if it is all of it, else beside it.

        An older whole of another version would still be fresh, but what is more recent is to be used (RFC 9111,
        section 4).
        """
        whole = completed(part.headers, self._size)
        # What answers a request with `If-Range` may lack fields that the whole would have (RFC 9110, section 15.3.7).
        if whole is not None and not values(self._request.scope["headers"], b"if-range"):
            part.status, part.headers = 200, tuple(whole)
            return self._request.key
        key = part_of(self._request.key)
        part.canonical = key.canonical
        whole = self._route.bucket.held.get(self.fill.key)
        if whole is not None and whole.created < part.created and not is_part_of(part.headers, whole):
            self._contradicted = whole
        return key

    def preview(self) -> Entry | None:
        """The response as far as its beginning tells, without content; None where it may not be stored."""
        verdict = self._judge() if self.refusal is None else self.refusal
        if isinstance(verdict, str) or verdict.partial or verdict.lifetime <= verdict.age:
            return None
        begun = self._made(verdict, begun=True)
        begun.vary, begun.canonical = self._route.variants.place(self._request.key, self._request.scope, verdict.vary)
        begun.born = self._engine.clock.monotonic() - verdict.age
        return begun

    def _content(self) -> bytes:
        first = self._chunks[0] if len(self._chunks) == 1 else b""
        return first if first and isinstance(first, bytes) else b"".join(self._chunks)

    def _made(self, verdict: Store, *, begun: bool = False) -> Entry:
        policy, canonical = self._route.policy, self._request.key.canonical
        body = b"" if begun else self._content()
        flags = Flag.SHARED if verdict.shared else Flag.NONE
        kept = with_downstream(storable_headers(self._headers, verdict.without), policy.downstream)
        validated = self._validation.validated if self._validation is not None else None
        if validated is not None and self._route.minds_who_asks and self._request.demands.credentialed:
            kept = updated_by_one(own_headers(validated), kept)
        if self._route.runs_dependencies:
            # Others may be what a dependency says of this request; on a hit its own dependencies say them anew.
            kept = tuple(line for line in kept if line[0] in _DESCRIBING or line[0].startswith(b"content-"))
        if verdict.must_revalidate:
            flags |= Flag.MUST_REVALIDATE
        if policy.etag and self.status == 200 and not begun and not values(kept, b"etag"):
            kept = (*kept, (b"etag", generated_etag(canonical, body)))
            flags |= Flag.GENERATED_ETAG
        return Entry(
            stamp=self.fill.stamp,
            created=self._engine.clock.time() - verdict.age,
            lifetime=verdict.lifetime,
            canonical=canonical,
            tags=self.tags(),
            status=self.status,
            headers=kept,
            body=body,
            flags=flags,
            stale_while_revalidate=verdict.stale_while_revalidate,
            stale_if_error=verdict.stale_if_error,
            retention=verdict.retention,
        )


def _read_small(path: str | PathLike[str], limit: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            body = file.read(limit + 1)
    except (OSError, ValueError):  # the latter of a name that no file can have
        return None  # the server will find out by itself
    return body if len(body) <= limit else None
