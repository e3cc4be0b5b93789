"""What may be wrong with a worker, to see whether the run notices."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, MutableMapping
from typing import Any

from asgi_tiercache import TierCache
from tests.soak.plants import PLANTS as SOAK_PLANTS


class Plant:
    """Nothing is wrong."""

    deaf_to_invalidations = False

    def into(self, cache: TierCache) -> None:
        """Do it to the cache."""

    def around(self, app: Any) -> Any:
        """Do it to the answers."""
        return app

    def user(self, user: str | None) -> str | None:
        """Whose answer a handler makes."""
        return user

    def at_work(self) -> None:
        """A slow handler runs."""


class MixesUsers(Plant):
    """Now and then a user is given another one's answer."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._count = itertools.count()

    def user(self, user: str | None) -> str | None:
        last, self._last = self._last, user
        return last if next(self._count) % 5 == 4 else user


class SkipsInvalidations(Plant):
    """Says that an invalidation is durable, and does not make it."""

    deaf_to_invalidations = True


class LeaksTasks(Plant):
    """A slow handler leaves a task behind."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def at_work(self) -> None:
        self._tasks.append(asyncio.create_task(asyncio.sleep(3600)))


class LeaksFiles(Plant):
    """A slow handler leaves a file open."""

    def at_work(self) -> None:
        for _ in range(50):
            os.open("/dev/null", os.O_RDONLY)


class _Around(Plant):
    """Every so often, something is done to an answer."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def around(self, app: Any) -> Any:
        async def spoiled(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] == "http" and next(self._count) % 50 == 0:
                send = self.spoil(send)
            await app(scope, receive, send)

        return spoiled

    def spoil(self, send: Any) -> Any:
        """A `send` that does it."""
        raise NotImplementedError


class SpoilsBodies(_Around):
    """A byte in the middle of a body is another one."""

    def spoil(self, send: Any) -> Any:
        async def spoiling(message: MutableMapping[str, Any]) -> None:
            body = message.get("body", b"")
            if len(body) > 100:
                message = {**message, "body": body[:80] + b"#" + body[81:]}
            await send(message)

        return spoiling


class Fails(_Around):
    """An answer of 500 that no handler has given."""

    def spoil(self, send: Any) -> Any:
        async def failing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name != b"x-expected"]
                message = {**message, "status": 500, "headers": kept}
            await send(message)

        return failing


class ServesTooOld(_Around):
    """An answer was made long ago."""

    def spoil(self, send: Any) -> Any:
        async def ageing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                lines = [(name, b"1.0" if name == b"x-made" else value) for name, value in message["headers"]]
                message = {**message, "headers": lines}
            await send(message)

        return ageing


class Cuts(_Around):
    """A connection ends in the middle of an answer."""

    def spoil(self, send: Any) -> Any:
        async def cutting(message: MutableMapping[str, Any]) -> None:
            if len(body := message.get("body", b"")) > 100:
                await send({**message, "body": body[:100], "more_body": True})
                raise ConnectionError("cut, as planted")
            await send(message)

        return cutting


class _Soaked(Plant):
    """What the soak plants."""

    name = ""

    def into(self, cache: TierCache) -> None:
        SOAK_PLANTS[self.name](cache)


class NeverJudges(_Soaked):
    """What is in memory is used, whatever was invalidated."""

    name = "never-judges"


class Deaf(_Soaked):
    """What others have invalidated is passed over."""

    name = "deaf"


class HoldsNothing(_Soaked):
    """What Redis has not taken does not count here, either."""

    name = "holds-nothing"


class IgnoresEpochs(_Soaked):
    """What was stored before the control state was lost counts all the same."""

    name = "ignores-epochs"


PLANTS: dict[str, Callable[[], Plant]] = {
    "none": Plant,
    "mixes-users": MixesUsers,
    "skips-invalidations": SkipsInvalidations,
    "leaks-tasks": LeaksTasks,
    "leaks-files": LeaksFiles,
    "spoils-bodies": SpoilsBodies,
    "fails": Fails,
    "serves-too-old": ServesTooOld,
    "cuts": Cuts,
    "never-judges": NeverJudges,
    "deaf": Deaf,
    "holds-nothing": HoldsNothing,
    "ignores-epochs": IgnoresEpochs,
}
