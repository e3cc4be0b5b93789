"""Request bodies that are part of the key: read once, given to the handler again."""

from __future__ import annotations

from starlette.types import Message, Receive


async def read_body(receive: Receive, limit: int) -> tuple[bytes, bool]:
    """The body, and whether that is all of it; reading stops once it exceeds `limit` bytes, or on a disconnect."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(chunks), False
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks), True
        if size > limit:
            return b"".join(chunks), False


def replay(body: bytes, receive: Receive, *, complete: bool = True) -> Receive:
    """A `receive` that gives `body`, which has been read already, before what else there is."""
    return before({"type": "http.request", "body": body, "more_body": not complete}, receive)


def before(first: Message, receive: Receive) -> Receive:
    """A `receive` that gives `first`, which has been read already, before what else there is."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return receive_again
