"""Between the middleware and the app below it: purges what the requests put into their outboxes."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache.outbox import Outbox, Outboxes


class PurgingApp:
    """Runs the app, purging before the messages of its response, and again after it returned or raised.

    Args:
        app: The app below the middleware.
        outboxes: Where requests put what they have changed.
    """

    __slots__ = ("_app", "_outboxes")

    def __init__(self, app: ASGIApp, outboxes: Outboxes) -> None:
        self._app = app
        self._outboxes = outboxes

    def __repr__(self) -> str:
        return f"<PurgingApp {self._outboxes!r}>"

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the app on one HTTP request."""
        # No coroutine of its own where there will be nothing to do: it would be felt in passing by.
        run = self._run if self._outboxes.used else self._app
        return run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        outboxes = self._outboxes
        outbox = Outbox(scope, send, outboxes.purger)
        token = outboxes.variable.set(outbox)
        try:
            await self._app(scope, receive, outbox.send)
        finally:
            outboxes.variable.reset(token)
            outbox.closed = True
            if outbox.purges:
                await outbox.purge_again()
