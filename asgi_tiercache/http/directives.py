"""Cache directives: `Cache-Control` (RFC 9111, section 5.2) and the field aimed at us (RFC 9213)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from asgi_tiercache.http.fields import TOKEN, elements, values
from asgi_tiercache.http.structured import BareItem, Item, Member, parse_dictionary
from asgi_tiercache.types import Header

MAX_SECONDS = 2**31
"""What stands for every longer time (RFC 9111, section 1.2.2)."""

_NAME = re.compile(TOKEN)
_DIRECTIVE = re.compile(rf'(?P<name>{TOKEN})(?:=(?:(?P<token>{TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*+)"))?', re.DOTALL)
_FIELD_LISTS = frozenset({"no-cache", "private"})


@dataclass(frozen=True, slots=True)
class Directives:
    """The cache directives of one message; `"no-store" in directives` asks for one by its lower-case name.

    Attributes:
        arguments: The arguments of each directive by name, one for each time it occurs: None without one, `""` where
            what follows the name is malformed.
    """

    arguments: Mapping[str, tuple[str | None, ...]]

    @classmethod
    def parse(cls, headers: Iterable[Header], name: bytes = b"cache-control") -> Directives:
        """The directives of all field lines called `name` (lower case). Never raises.

        An element that is malformed behind its name counts as that directive with a useless argument: something
        that forbids goes on forbidding, a lifetime becomes 0.
        """
        return cls(_by_name(filter(None, map(_directive, elements(headers, name)))))

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    def seconds(self, name: str) -> int | None:
        """The argument of `name` in seconds, at most 2**31; None if the directive is absent.

        An argument that is no number counts as 0, and so do several that differ: of the two readings that RFC 9111,
        section 4.2.1 offers for them, first or stale, stale can only cost a miss.
        """
        arguments = self.arguments.get(name)
        if arguments is None:
            return None
        numbers = {delta_seconds(argument) for argument in arguments}
        return (numbers.pop() or 0) if len(numbers) == 1 else 0

    def fields(self, name: str) -> frozenset[str] | None:
        """The field names, lower case, that `no-cache="..."` or `private="..."` is limited to; None if it is not.

        Where the directive occurs once without field names it is unlimited. A cache may take every such directive
        for unlimited (RFC 9111, sections 5.2.2.4 and 5.2.2.7), and `storing` does so for now.
        """
        lists = [_field_names(argument) for argument in self.arguments.get(name, ())]
        return frozenset().union(*lists) if lists and all(lists) else None


def delta_seconds(text: str | None) -> int | None:
    """`text` as seconds, at most 2**31 (RFC 9111, section 1.2.2); None if it is not a row of digits."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")[:11]  # eleven tell that it is too long; int() refuses thousands of them
    return min(int(digits or "0"), MAX_SECONDS)


def targeted(headers: Iterable[Header]) -> Directives | None:
    """The directives of `CDN-Cache-Control`, to be used in place of `Cache-Control` and `Expires` (RFC 9213).

    None if the field is absent, empty, or not a structured field (section 2.1): then it is to be ignored. Values of
    a type that the directive does not have are not consumed: a number of seconds that is no Integer counts as
    malformed, which makes it 0. Parameters are ignored.
    """
    members = parse_dictionary(b", ".join(values(headers, b"cdn-cache-control")))
    return Directives(_by_name(_consumed(members))) if members else None


def _directive(element: str) -> tuple[str, str | None] | None:
    if match := _DIRECTIVE.fullmatch(element):
        quoted: str | None = match["quoted"]
        argument = match["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        return match["name"].lower(), argument
    name = _NAME.match(element)
    return (name[0].lower(), "") if name else None


def _by_name(directives: Iterable[tuple[str, str | None]]) -> dict[str, tuple[str | None, ...]]:
    found: dict[str, list[str | None]] = {}
    for name, argument in directives:
        # The one directive that only permits counts only as it is defined: nothing malformed permits anything.
        if name != "public" or argument is None:
            found.setdefault(name, []).append(argument)
    return {name: tuple(arguments) for name, arguments in found.items()}


def _field_names(argument: str | None) -> frozenset[str]:
    names = (argument or "").lower().split(",")
    return frozenset(name for text in names if (name := text.strip(" \t")))


def _consumed(members: Mapping[str, Member]) -> Iterator[tuple[str, str | None]]:
    for name, member in members.items():
        value = member.value if isinstance(member, Item) else b""  # no directive takes a list
        if value is not False:
            yield name, _argument(name, value)


def _argument(name: str, value: BareItem) -> str | None:
    if value is True:
        return None
    wanted = str if name in _FIELD_LISTS else int
    return str(value) if type(value) is wanted else ""
