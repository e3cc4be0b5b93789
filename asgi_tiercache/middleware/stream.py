"""A response for those who follow it while it is still being produced."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from starlette.types import Message, Send

from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Clock, Entry

SHAREABLE = frozenset({"too-large", "too-slow"})
"""Reasons for which a response that is not stored may go on to those who have had its beginning."""
BEHIND_SECONDS = 10.0
"""How long one follower may keep all others waiting, where what they have not taken yet is kept nowhere else."""


MERGED = 256
"""Small pieces of a body that become one where nobody takes them at once: each costs hundreds of bytes of its own."""
_SMALL = 1_024


def is_small(message: Message) -> bool:
    """Whether `message` is a piece of a body, not its last, that costs more than its bytes."""
    return (
        message["type"] == "http.response.body"
        and message.get("more_body", False)
        and len(message.get("body", b"")) < _SMALL
    )


def merged(messages: Sequence[Message]) -> Message:
    """One piece of a body in place of several."""
    body = b"".join([message.get("body", b"") for message in messages])
    return {"type": "http.response.body", "body": body, "more_body": True}


class FellBehindError(OSError):
    """The rest of a response is not to be had any more."""


class Stream:
    """The messages of one response: all of them as long as it may be stored, then what followers have not taken yet.

    While it may be stored nobody waits for a follower, since the tee bounds what piles up. After that the app waits for
    the slowest, and who is too slow loses the connection.

    Args:
        left: Called whenever a follower is there no more.
    """

    def __init__(self, left: Callable[[], None]) -> None:
        self.preview: Entry | None = None
        """The response as far as its beginning tells, for followers to judge whether it is for them."""
        self.joinable = True
        """Whether all messages so far are there."""
        self._left = left
        self._messages: list[Message] = []
        self._small = 0
        """How many of them, at the end, are small."""
        self._followers: set[_Follower] = set()
        self._unfollowed = asyncio.Event()
        self._unfollowed.set()
        self._lagging: set[_Follower] = set()
        """Of the followers, those for whom the app waits."""
        self._caught_up: asyncio.Future[None] | None = None
        self._over = False

    def open(self, preview: Entry) -> None:
        """From now on it may be followed."""
        self.preview = preview

    @property
    def followed(self) -> bool:
        """Whether anybody still takes what is given."""
        return bool(self._followers)

    async def unfollowed(self) -> None:
        """Return once nobody takes what is given."""
        await self._unfollowed.wait()

    def give(self, message: Message) -> None:
        """Here is the next message."""
        self._messages.append(message)
        self._small = self._small + 1 if is_small(message) else 0
        if self._small == MERGED:
            self._merge()
        for follower in self._followers:
            follower.wake()

    def _merge(self) -> None:
        """Put one message in place of many small ones. Who is in the midst of them takes the rest one by one."""
        first = len(self._messages) - MERGED
        pieces = self._messages[first:]
        for follower in self._followers:
            if follower.position >= first and not follower.apart:
                follower.apart.extend(pieces[follower.position - first :])
                follower.position = first + 1
        self._messages[first:] = [merged(pieces)]
        self._small = 0

    async def keep_up(self, clock: Clock) -> None:
        """Return when every follower has taken all that was given, which is forgotten then.

        Who takes too long is left behind; the seconds count for all of them together.
        """
        self.joinable = False
        self._lagging = {follower for follower in self._followers if follower.lacks(self._messages) is not None}
        if self._lagging:
            self._caught_up = asyncio.get_running_loop().create_future()
            await first(self._caught_up, clock, BEHIND_SECONDS)
        for follower in tuple(self._lagging):
            self._remove(follower)
            follower.cut()
        for follower in self._followers:
            follower.position = 0
        self._messages.clear()
        self._small = 0

    def end(self) -> None:
        """There is nothing more to come, and nobody to be told of who leaves."""
        self._over = True
        self._left = _nobody_cares
        for follower in self._followers:
            follower.wake()

    def cut(self) -> None:
        """What is still to come is not for others."""
        self.joinable = False
        for follower in tuple(self._followers):
            self._remove(follower)
            follower.cut()

    async def relay(self, send: Send) -> None:
        """Hand on all messages, from the first one on.

        Raises:
            FellBehindError: the rest is not to be had.
        """
        follower = _Follower()
        self._followers.add(follower)
        self._unfollowed.clear()
        try:
            while not follower.lost:
                message = follower.lacks(self._messages)
                if message is not None:
                    await send(message)
                    if not message.get("more_body", message["type"] == "http.response.start"):
                        return
                    follower.took()
                elif self._over:
                    raise FellBehindError("the response has ended too early")
                else:
                    self._keeps_up(follower)
                    await follower.next()
            raise FellBehindError("the rest of the response is not to be had")
        finally:
            self._remove(follower)
            self._left()

    def _remove(self, follower: _Follower) -> None:
        self._followers.discard(follower)
        if not self._followers:
            self._unfollowed.set()
        self._keeps_up(follower)

    def _keeps_up(self, follower: _Follower) -> None:
        """The app need not wait for it: it has everything, or wants nothing any more."""
        self._lagging.discard(follower)
        if not self._lagging and self._caught_up is not None and not self._caught_up.done():
            self._caught_up.set_result(None)


def _nobody_cares() -> None:
    pass


class _Follower:
    def __init__(self) -> None:
        self.position = 0
        """How many of the messages that are there it has taken."""
        self.apart: deque[Message] = deque()
        """What it takes before it goes on there."""
        self.lost = False
        self._turn: asyncio.Future[None] | None = None

    def lacks(self, messages: Sequence[Message]) -> Message | None:
        """The first of `messages` that it has not taken."""
        if self.apart:
            return self.apart[0]
        return messages[self.position] if self.position < len(messages) else None

    def took(self) -> None:
        """It has taken what it lacked."""
        if self.apart:
            self.apart.popleft()
        else:
            self.position += 1

    async def next(self) -> None:
        """Return when there is something new."""
        self._turn = asyncio.get_running_loop().create_future()
        await self._turn

    def wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def cut(self) -> None:
        self.lost = True
        self.wake()
