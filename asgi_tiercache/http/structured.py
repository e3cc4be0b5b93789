"""Structured fields (RFC 9651, which replaces RFC 8941), as far as caching needs them: dictionaries and lists.

The parser follows the algorithms of RFC 9651, section 4.2 exactly. Whatever they reject fails the field as a whole.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")

MAX_BYTES = 128 * 1024
"""Longer fields are not looked at: more than any server takes as a header block."""


class Token(str):
    """A short word without quotes; never equal in kind to a String, which is a plain `str`."""

    __slots__ = ()


class DisplayString(str):
    """A text in any script, percent-encoded in the field."""

    __slots__ = ()


class Date(int):
    """Seconds since 1970."""

    __slots__ = ()


BareItem: TypeAlias = bool | int | Decimal | str | bytes
"""Boolean, Integer (or `Date`), Decimal, String (or `Token`, `DisplayString`), Byte Sequence."""


class Item(NamedTuple):
    """One value with its parameters."""

    value: BareItem
    parameters: Mapping[str, BareItem]


class InnerList(NamedTuple):
    """Items in parentheses, with parameters of the list itself."""

    items: tuple[Item, ...]
    parameters: Mapping[str, BareItem]


Member: TypeAlias = Item | InnerList


def parse_dictionary(value: bytes) -> dict[str, Member] | None:
    """The members of a dictionary field (all lines joined by `", "`), or None if it does not parse."""
    return _parsed(value, _dictionary)


def parse_list(value: bytes) -> list[Member] | None:
    """The members of a list field (all lines joined by `", "`), or None if it does not parse."""
    return _parsed(value, _list)


def serialise_text(text: str) -> str:
    """`text` as a Token if it can be one, else as a String; what a String cannot hold becomes `?`."""
    if _TOKEN.fullmatch(text):
        return text
    printable = re.sub(r"[^ -~]", "?", text)
    return '"' + re.sub(r'(["\\])', r"\\\1", printable) + '"'


_OWS = re.compile(r"[ \t]*")
_SPACES = re.compile(" *")
_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")


class _Cursor:
    """A text and how far it has been read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def at_end(self) -> bool:
        return self._position == len(self._text)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what `pattern` matches here, if it does."""
        match = pattern.match(self._text, self._position)
        if match is not None:
            self._position = match.end()
        return match

    def take(self, character: str) -> bool:
        """Read `character` if it is the next one."""
        taken = self._text.startswith(character, self._position)
        self._position += taken
        return taken

    def sees(self, characters: str) -> bool:
        """Whether the next character is one of `characters`."""
        return not self.at_end() and self._text[self._position] in characters


def _parsed(value: bytes, read: Callable[[_Cursor], T]) -> T | None:
    if len(value) > MAX_BYTES:
        return None
    try:
        return read(_Cursor(value.decode("ascii").strip(" ")))
    except ValueError:  # raised below, or by a conversion: not ASCII, not base64, not UTF-8
        return None


def _dictionary(cursor: _Cursor) -> dict[str, Member]:
    members: dict[str, Member] = {}
    while not cursor.at_end():
        key = _key(cursor)
        members[key] = _member(cursor) if cursor.take("=") else Item(True, _parameters(cursor))
        _separator(cursor)
    return members


def _list(cursor: _Cursor) -> list[Member]:
    members: list[Member] = []
    while not cursor.at_end():
        members.append(_member(cursor))
        _separator(cursor)
    return members


def _separator(cursor: _Cursor) -> None:
    """Read what stands between two members; at the end there is nothing to read."""
    cursor.match(_OWS)
    if cursor.at_end():
        return
    if not cursor.take(","):
        raise ValueError("a comma is missing")
    cursor.match(_OWS)
    if cursor.at_end():
        raise ValueError("nothing follows the last comma")


def _member(cursor: _Cursor) -> Member:
    return _inner_list(cursor) if cursor.take("(") else _item(cursor)


def _inner_list(cursor: _Cursor) -> InnerList:
    items: list[Item] = []
    while True:
        cursor.match(_SPACES)
        if cursor.take(")"):
            return InnerList(tuple(items), _parameters(cursor))
        items.append(_item(cursor))
        if not cursor.sees(" )"):
            raise ValueError("an inner list does not end")


def _item(cursor: _Cursor) -> Item:
    return Item(_bare_item(cursor), _parameters(cursor))


def _parameters(cursor: _Cursor) -> dict[str, BareItem]:
    parameters: dict[str, BareItem] = {}
    while cursor.take(";"):
        cursor.match(_SPACES)
        key = _key(cursor)
        parameters[key] = _bare_item(cursor) if cursor.take("=") else True
    return parameters


def _key(cursor: _Cursor) -> str:
    match = cursor.match(_KEY)
    if match is None:
        raise ValueError("not a key")
    return match[0]


def _bare_item(cursor: _Cursor) -> BareItem:
    for pattern, convert in _BARE_ITEMS:
        if match := cursor.match(pattern):
            return convert(match)
    raise ValueError("not a value")


def _number(match: re.Match[str]) -> int | Decimal:
    whole, fraction = match["whole"], match["fraction"]
    if fraction is None:
        if len(whole) > 15:
            raise ValueError("an Integer has at most 15 digits")
        return int(match[0])
    if len(whole) > 12 or not 1 <= len(fraction) <= 3:
        raise ValueError("a Decimal has at most 12 digits, a point, and 1 to 3 digits")
    return Decimal(match[0])


def _string(match: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", match[1])


def _byte_sequence(match: re.Match[str]) -> bytes:
    text: str = match[1]
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # padding may be left out


def _date(match: re.Match[str]) -> Date:
    if len(match["whole"]) > 15:
        raise ValueError("a Date is an Integer")
    return Date(match[0][1:])


def _display_string(match: re.Match[str]) -> DisplayString:
    return DisplayString(unquote_to_bytes(match[1]).decode())


# The first character decides which one it is, so the order carries no meaning.
_BARE_ITEMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], BareItem]], ...] = (
    (re.compile(r"-?(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]*))?"), _number),
    (re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"'), _string),
    (_TOKEN, lambda match: Token(match[0])),
    (re.compile(r":([A-Za-z0-9+/=]*):"), _byte_sequence),
    (re.compile(r"\?([01])"), lambda match: match[1] == "1"),
    (re.compile(r"@-?(?P<whole>[0-9]++)(?!\.)"), _date),
    (re.compile(r'%"((?:[ !#-$&-~]|%[0-9a-f]{2})*+)"'), _display_string),
)
