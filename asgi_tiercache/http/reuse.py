"""May a stored response answer a request: what the request itself asks for (RFC 9111, section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asgi_tiercache.http.directives import Directives
from asgi_tiercache.http.fields import elements
from asgi_tiercache.types import Header

_FIELDS = frozenset({b"cache-control", b"pragma"})


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """What a request asks of a cache.

    Attributes:
        no_cache: It wants no answer that was not validated.
        no_store: Neither it nor its response may be stored; an answer stored before may be used.
        only_if_cached: It wants a stored answer or none.
        max_age: The highest age that it accepts, in seconds.
        min_fresh: How many seconds the answer is to stay fresh for at least.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None

    @classmethod
    def parse(cls, headers: Iterable[Header]) -> RequestDirectives:
        """The directives of a request with these field lines. Never raises.

        `Pragma: no-cache` counts where there is no `Cache-Control` (section 5.4, and RFC 7234 for how).
        """
        # This runs on every hit, and hardly any request says anything: one pass over the names tells.
        lines = [line for line in headers if line[0].lower() in _FIELDS]
        if not lines:
            return NO_DIRECTIVES
        if any(name.lower() == b"cache-control" for name, _ in lines):
            return cls._of(Directives.parse(lines))
        pragma = [element.lower() for element in elements(lines, b"pragma")]
        return cls(no_cache=True) if "no-cache" in pragma else NO_DIRECTIVES

    @classmethod
    def _of(cls, directives: Directives) -> RequestDirectives:
        return cls(
            no_cache="no-cache" in directives,
            no_store="no-store" in directives,
            only_if_cached="only-if-cached" in directives,
            max_age=directives.seconds("max-age"),
            min_fresh=directives.seconds("min-fresh"),
        )

    def accepts(self, *, age: float, lifetime: float) -> bool:
        """Whether a stored response that is fresh by itself is fresh enough for this request.

        Args:
            age: Its `current_age` in seconds.
            lifetime: Its `freshness_lifetime` in seconds.
        """
        if self.no_cache:
            return False
        if self.max_age is not None and age > self.max_age:
            return False
        return self.min_fresh is None or lifetime - age >= self.min_fresh


NO_DIRECTIVES = RequestDirectives()
"""Of a request that asks for nothing in particular."""
