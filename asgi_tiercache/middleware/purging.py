"""Between the middleware and the app below it: purges what the requests put into their outboxes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.outbox import Outbox, Outboxes, PurgeOrder


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

    async def purging(
        self, scope: Scope, receive: Receive, send: Send, outdated: Callable[[Message], tuple[str, ...]]
    ) -> Outbox:
        """Run the app on one HTTP request that may change something.

        Args:
            scope: The request.
            receive: Gives its body.
            send: Takes the response.
            outdated: The tags to purge if the response that begins with a message is a success.

        Returns:
            What was purged.
        """
        outbox = Outbox(scope, send, self._outboxes.purger)

        async def look(message: Message) -> None:
            if message["type"] == "http.response.start" and (tags := outdated(message)):
                outbox.add(PurgeOrder(tags, kind="unsafe"), if_successful=True)
            await outbox.send(message)

        await self._run_with(outbox, scope, receive, look)
        return outbox

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = Outbox(scope, send, self._outboxes.purger)
        await self._run_with(outbox, scope, receive, outbox.send)

    async def _run_with(self, outbox: Outbox, scope: Scope, receive: Receive, send: Send) -> None:
        variable = self._outboxes.variable
        token = variable.set(outbox)
        try:
            await self._app(scope, receive, send)
        finally:
            variable.reset(token)
            outbox.closed = True
            if outbox.purges:
                await outbox.purge_again()
