"""A response for those who follow it while it is still being produced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message

from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Clock, Entry

SHAREABLE = frozenset({"too-large", "too-slow"})
"""Reasons for which a response that is not stored may go on to those who have had its beginning."""
BEHIND_SECONDS = 10.0
"""How long one follower may keep all others waiting, where what they have not taken yet is kept nowhere else."""


class FellBehindError(OSError):
    """The rest of a response is not to be had any more."""


class Stream:
    """The messages of one response: all of them as long as it may be stored, then what followers have not taken yet.

    While it may be stored nobody waits for a follower, since the tee bounds what piles up. After that the app waits for
    the slowest, and who is too slow loses the connection.
    """

    def __init__(self) -> None:
        self.preview: Entry | None = None
        """The response as far as its beginning tells, for followers to judge whether it is for them."""
        self._messages: list[Message] = []
        self.joinable = True
        """Whether all messages so far are there."""
        self._followers: set[_Follower] = set()
        self._over = False

    @property
    def opened(self) -> bool:
        """Whether there is anything to follow."""
        return self.preview is not None

    def open(self, preview: Entry) -> None:
        """From now on it may be followed."""
        self.preview = preview

    @property
    def followed(self) -> bool:
        """Whether anybody still takes what is given."""
        return bool(self._followers)

    def give(self, message: Message) -> None:
        """Here is the next message."""
        self._messages.append(message)
        for follower in self._followers:
            follower.wake()

    async def keep_up(self, clock: Clock) -> None:
        """Return when every follower has taken all that was given, which is forgotten then.

        Who takes too long is left behind.
        """
        self.joinable = False
        for follower in list(self._followers):
            if follower.position < len(self._messages):
                await first(follower.caught_up(), clock, BEHIND_SECONDS)
                if follower.position < len(self._messages):
                    self._followers.discard(follower)
                    follower.cut()
        for follower in self._followers:
            follower.position = 0
        self._messages.clear()

    def end(self) -> None:
        """There is nothing more to come."""
        self._over = True
        for follower in self._followers:
            follower.wake()

    def cut(self) -> None:
        """What is still to come is not for others."""
        self.joinable = False
        for follower in self._followers:
            follower.cut()
        self._followers.clear()

    async def messages(self) -> AsyncIterator[Message]:
        """All messages, from the first one on.

        Raises:
            FellBehindError: the rest is not to be had.
        """
        follower = _Follower()
        self._followers.add(follower)
        try:
            while True:
                if follower.lost:
                    raise FellBehindError("the rest of the response is not to be had")
                if follower.position < len(self._messages):
                    message = self._messages[follower.position]
                    yield message
                    follower.took()
                    if not message.get("more_body", message["type"] == "http.response.start"):
                        return
                elif self._over:
                    raise FellBehindError("the response has ended too early")
                else:
                    await follower.next()
        finally:
            self._followers.discard(follower)


class _Follower:
    def __init__(self) -> None:
        self.position = 0
        self.lost = False
        self._turn: asyncio.Future[None] | None = None
        self._caught_up: asyncio.Future[None] | None = None

    async def next(self) -> None:
        """Return when there is something new."""
        if self._caught_up is not None and not self._caught_up.done():
            self._caught_up.set_result(None)
        self._turn = asyncio.get_running_loop().create_future()
        await self._turn

    def took(self) -> None:
        self.position += 1

    def wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def cut(self) -> None:
        self.lost = True
        self.wake()

    def caught_up(self) -> asyncio.Future[None]:
        """Done when it has taken everything."""
        self._caught_up = asyncio.get_running_loop().create_future()
        return self._caught_up
