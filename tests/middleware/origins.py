"""A handler as an origin server: versions with validators, 304 to who has the present one, failures on command."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formatdate

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from asgi_tiercache.testing import TickingClock
from tests.middleware.apps import Handler


class Origin:
    """An endpoint with one representation.

    Args:
        cache_control: What it says on every response; `""`: nothing.
        clock: Dates its responses.
        etag: Whether it has entity tags.
        modified: Whether it says when it was last modified.
        headers: Further fields of every response.
    """

    def __init__(
        self,
        cache_control: str = "max-age=10",
        *,
        clock: TickingClock | None = None,
        etag: bool = True,
        modified: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.cache_control = cache_control
        self.version = 1
        self.fails: int | Exception | None = None
        """What it answers instead: a status code, or the exception that it raises."""
        self.headers = dict(headers or {})
        self.open = asyncio.Event()
        self.open.set()
        self.answers: list[int] = []
        """The status codes that it has answered; 0 for an exception."""
        self.handler = Handler(self._respond)
        self._clock = clock
        self._etag = etag
        self._modified = modified

    @property
    def tag(self) -> str:
        """The entity tag of the present version."""
        return f'"v{self.version}"'

    @property
    def modified(self) -> str:
        """When the present version was made."""
        return formatdate(1_600_000_000 + self.version, usegmt=True)

    async def _respond(self, request: Request) -> Response:
        await self.open.wait()
        if isinstance(self.fails, Exception):
            self.answers.append(0)
            raise self.fails
        response = self._answer(request)
        self.answers.append(response.status_code)
        return response

    def _answer(self, request: Request) -> Response:
        if isinstance(self.fails, int):
            return PlainTextResponse("failed", self.fails)
        lines = dict(self.headers)
        if self.cache_control:
            lines["cache-control"] = self.cache_control
        if self._clock is not None:
            lines["date"] = formatdate(self._clock.time(), usegmt=True)
        if self._etag:
            lines["etag"] = self.tag
        if self._modified:
            lines["last-modified"] = self.modified
        if self._holds(request):
            return Response(status_code=304, headers=lines)
        return PlainTextResponse(f"version {self.version}", headers=lines)

    def _holds(self, request: Request) -> bool:
        asked = request.headers.get("if-none-match")
        if asked is not None:
            return self._etag and self.tag in asked
        return self._modified and request.headers.get("if-modified-since") == self.modified
