"""The app, asked whether what is stored still holds: a 304 becomes a full response, an error a stale one.

What is above sees an ordinary response to an ordinary request; `ValidatingApp` says afterwards what it really was.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.http.conditional import NOT_MODIFIED
from asgi_tiercache.http.fields import octets_of
from asgi_tiercache.http.reuse import ERRORS
from asgi_tiercache.http.validation import conditions, freshened, own_headers, selected
from asgi_tiercache.types import Entry, Header

logger = logging.getLogger("asgi_tiercache")

DRAINED_BYTES = 65_536
DRAINED_MESSAGES = 64
"""How much of a response that nobody receives is waited for: enough for an error page, little of an endless one."""


class ValidatingApp:
    """The app for one fill that validates `stored` (RFC 9111, section 4.3.3).

    1. A 304 about one of `stored`: the complete response, as the 304 updates it.
    2. A 304 about none of them: nobody has seen it, so the app runs once more, without conditions.
    3. An error, or an exception before the response began, where a stored response may stand in for it: that one.
       The app is not heard to the end if it has too much to say.
    4. Everything else passes, message by message.

    Args:
        app: The app below.
        stored: The responses to validate; the first that may stand in for an error does.
        may_stand_in: Whether the client may be given the entry in place of an error with that status code (None: an
            exception): see `http.reuse.may_stand_in`. Asked of no others than `http.reuse.ERRORS`.
        asks: Whether to ask at all; without that, there is the third case only.

    Attributes:
        validated: The entry that a 304 was about; set before its response is sent, like the others.
        stood_in: The entry that was sent in place of an error.
        status: What the app really answered; None before that, and where it raised instead.
    """

    def __init__(
        self,
        app: ASGIApp,
        stored: Sequence[Entry],
        *,
        may_stand_in: Callable[[Entry, int | None], bool],
        asks: bool = True,
    ) -> None:
        self._app = app
        self._stored = stored
        self._may_stand_in = may_stand_in
        self._asks = asks
        self._client_send: Send
        self._conditional = False
        self._began = False
        self._answered = False
        self._drain: _Drain | None = None
        self.validated: Entry | None = None
        self.stood_in: Entry | None = None
        self.status: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; called once. The conditions are put into `scope` itself, which the app goes on changing."""
        self._client_send = send
        # To other methods, a condition that fails means 412 (RFC 9110, section 13.1.2).
        asked = conditions(self._stored) if self._asks and scope["method"] == "GET" else []
        if not asked:
            return await self._run(scope, receive)
        unasked, body = dict(scope), _Rewindable(receive)
        scope["headers"] = [*scope["headers"], *asked]
        self._conditional = True
        await self._run(scope, body)
        if self._drain is not None and not self._began:
            body.rewind()
            # The router has left its marks: a mount, for one, has moved its prefix to where it would look again.
            scope.clear()
            scope.update(unasked)
            self._conditional, self._drain = False, None
            await self._run(scope, body)

    async def _run(self, scope: Scope, receive: Receive) -> None:
        self.status = None
        try:
            await self._app(scope, receive, self._send)
        except Exception:
            if self._drain is not None and self._drain.cut:
                return
            if not self._began:
                self.status = None
                if not await self._stand_in(None):
                    raise
            elif self.stood_in is None or not self._answered:
                raise
            logger.warning("a handler failed, and a stale response stood in for it", exc_info=True)

    async def _send(self, message: Message) -> None:
        if self._drain is not None:
            self._drain.take(message)
        elif message["type"] == "http.response.start" and not self._began:
            await self._start(message)
        else:
            await self._client_send(message)

    async def _start(self, message: Message) -> None:
        status = self.status = message["status"]
        headers = octets_of(message.get("headers", ())) if status == NOT_MODIFIED and self._conditional else None
        if headers is not None:
            await self._not_modified(headers)
        elif status not in ERRORS or not await self._stand_in(status):
            self._began = True
            await self._client_send(message)

    async def _not_modified(self, headers: Sequence[Header]) -> None:
        self._drain = _Drain()
        about = selected(self._stored, headers)
        if about:
            self.validated = about[0]
            ages = [line for line in headers if line[0].lower() == b"age"]  # not stored, and yet the age of the answer
            await self._answer(about[0], [*freshened(own_headers(about[0]), headers), *ages])

    async def _stand_in(self, status: int | None) -> bool:
        entry = next((entry for entry in self._stored if self._may_stand_in(entry, status)), None)
        if entry is None:
            return False
        self._drain = _Drain()
        self.stood_in = entry
        await self._answer(entry, entry.headers)
        return True

    async def _answer(self, entry: Entry, headers: Sequence[Header]) -> None:
        self._began = True
        lines = [line for line in headers if line[0] != b"content-length"]
        if entry.status != 204:  # which has none (RFC 9110, section 8.6)
            lines.append((b"content-length", b"%d" % len(entry.body)))
        await self._client_send({"type": "http.response.start", "status": entry.status, "headers": lines})
        await self._client_send({"type": "http.response.body", "body": entry.body, "more_body": False})
        self._answered = True


class _Drain:
    """Where a response goes that nobody receives; `cut` once it was too long."""

    def __init__(self) -> None:
        self._bytes = 0
        self._messages = 0
        self.cut = False

    def take(self, message: Message) -> None:
        """Let go of `message`; raises where too many were still to follow."""
        self._bytes += len(message.get("body", b""))
        self._messages += 1
        if message.get("more_body", False) and (self._bytes > DRAINED_BYTES or self._messages > DRAINED_MESSAGES):
            self.cut = True
            raise OSError("nobody is there for the rest of this response")


class _Rewindable:
    """A `receive` whose messages can be given a second time: the request body, or that the client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._given: list[Message] = []
        self._again: deque[Message] = deque()

    async def __call__(self) -> Message:
        """The next message."""
        if self._again:
            return self._again.popleft()
        message = await self._receive()
        self._given.append(message)
        return message

    def rewind(self) -> None:
        """Begin again with what was given."""
        self._again.extend(self._given)
