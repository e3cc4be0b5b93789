"""Which annotations can be stored, and the classes, unions and aliases among them."""

from __future__ import annotations

import enum
import io
import warnings
from collections import namedtuple
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_validator,
    model_validator,
)
from starlette.responses import Response
from typing_extensions import TypeAliasType

from asgi_tiercache.codec import ValueCodec, codec_for
from asgi_tiercache.errors import CodecError

T = TypeVar("T")
U = TypeVar("U")


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = "b"


class Rank(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Open(enum.Enum):
    """Takes any value, as enums of protocols do."""

    KNOWN = 1

    @classmethod
    def _missing_(cls, value: Any) -> Open:
        member = object.__new__(cls)
        member._name_, member._value_ = "KNOWN", value
        return member


class Bits(enum.IntFlag, boundary=enum.EJECT):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: Decimal = Decimal(0)


Loose = namedtuple("Loose", "a b")


class LabelledPoint(Point):
    pass


@dataclass
class User:
    id: UUID
    name: str
    born: datetime | None = None
    scores: dict[int, float] = field(default_factory=dict)
    friends: list[User] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    point: Point
    color: Color
    extra: Any = None


@dataclass
class Admin(User):
    pass


@dataclass
class Priced:
    price: float
    gross: float = field(init=False)
    rate: InitVar[float] = 1.2

    def __post_init__(self, rate: float) -> None:
        self.price *= rate
        self.gross = self.price


@dataclass
class Lazy:
    n: int

    @cached_property
    def square(self) -> int:
        return self.n**2


@dataclass
class Unresolved:
    other: Nowhere  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Holder:
    source: Iterator[int]


@dataclass
class Listing(list[int]):
    name: str = ""


class HiddenSlot:
    __slots__ = ("secret",)


@dataclass(slots=True)
class WithHiddenSlot(HiddenSlot):
    n: int


@dataclass
class Box(Generic[T]):
    content: T


class Movie(TypedDict):
    title: str
    seen: NotRequired[datetime]


class Partial(TypedDict, total=False):
    title: Required[str]
    stars: int


class Rated(Movie, total=False):
    stars: int


class Address(BaseModel):
    city: str
    zone: Any = None


class Account(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    when: datetime = datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    balance: Decimal = Decimal("0.10")
    addresses: list[Address] = []
    raw: bytes = b"\xff"
    anything: Any = None


class Aliased(BaseModel):
    a: int = Field(alias="A")
    b: int = Field(validation_alias="read_b", serialization_alias="write_b")


class Linked(BaseModel):
    model_config = ConfigDict(strict=True)
    url: HttpUrl
    color: Color


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Pet(BaseModel):
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int

    @computed_field
    def double(self) -> int:
        return self.n * 2


class Duck:
    """What pydantic's models look like, without pydantic."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duck) and self.n == other.n

    def __hash__(self) -> int:
        return hash(self.n)

    def __repr__(self) -> str:
        return f"Duck({self.n})"

    def model_dump(self, **options: Any) -> dict[str, int]:
        return {"n": self.n}

    @classmethod
    def model_validate(cls, content: dict[str, int], *, strict: bool | None = None) -> Duck:
        return Duck(content["n"])


class Duckling(Duck):
    pass


class Secret(BaseModel):
    password: SecretStr


class Doubled(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def double(cls, n: int) -> int:
        return n * 2


class Popping(BaseModel):
    n: int

    @model_validator(mode="before")
    @classmethod
    def pop(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {"n": data.pop("n")}


class Noted(BaseModel):
    n: int
    _note: str = PrivateAttr("")


class Node(BaseModel):
    next: Optional[Node] = None  # noqa: UP045


class Numbers(RootModel[list[int]]):
    pass


class BigAccount(Account):
    pass


UserId = NewType("UserId", int)
Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")
Pairs = TypeAliasType("Pairs", dict[U, list[T]], type_params=(T, U))
Tree = TypeAliasType("Tree", Union[T, "list[Tree[T]]"], type_params=(T,))
Recursive = TypeAliasType("Recursive", "list[Recursive]")


def round_trip(annotation: Any, value: Any) -> Any:
    codec = codec_for(annotation, where="load")
    return codec.load(codec.dump(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.BLUE),
        (Color, Color.CRIMSON),
        (Rank, Rank.LOW),
        (Right, Right.READ | Right.WRITE),
        (Right, Right(0)),
        (dict[Color, int], {Color.RED: 1}),
        (Point, Point(1, Decimal("2.0"))),
        (Loose, Loose(1, (2,))),
        (Literal["a", 1, b"x", None, Color.RED], "a"),
        (Literal["a", 1, b"x", None, Color.RED], 1),
        (Literal["a", 1, b"x", None, Color.RED], b"x"),
        (Literal["a", 1, b"x", None, Color.RED], None),
        (Literal["a", 1, b"x", None, Color.RED], Color.RED),
        (Literal[1, True], True),
        (dict[Literal["a"], int], {"a": 1}),
        (Annotated[int, {"unhashable": 1}], 5),
        (list[Annotated[str, "x"]], ["a"]),
        (UserId, 5),
        (list[UserId], [5]),
        (Optional[int], None),  # noqa: UP045
        (Union[int, str], "a"),  # noqa: UP007
        (int | str | bytes | None, b"a"),
        (int | str | bytes | None, None),
        (int | str | bytes | None, 2**70),
        (int | float, 1),
        (int | float, float("inf")),
        (list[int] | list[str], ["a"]),
        (list[int] | dict[str, int] | None, {"a": 1}),
        (datetime | str, "2024-01-01T00:00:00"),
        (datetime | str, datetime(2024, 1, 1)),
        (tuple[int, int] | list[int], (1, 2)),
        (tuple[int, int] | list[int], [1, 2]),
        (Point | Frozen | User, Point(1)),
        (Frozen | None, Frozen(Point(1), Color.RED)),
        (bytes | Any, b"x"),
        (Any | None, None),
        (Sequence[int], [1]),
        (Sequence[int], (1,)),
        (Mapping[str, int], {"a": 1}),
        (AbstractSet[int], frozenset({1})),
        (Collection[int], {1}),
        (Json, {"a": [1, "x", None, {"b": {}}]}),
        (Pairs[int, str], {"a": [1]}),
        (Recursive, [[], [[]]]),
        (list[Json], [1, ["a"]]),
        (Tree[int], [1, [2, []]]),
        (User, User(UUID(int=1), "a", datetime(2024, 1, 1, tzinfo=UTC), {1: 2.0}, [User(UUID(int=2), "b")])),
        (Frozen, Frozen(Point(1), Color.RED, {"x": (1, b"y")})),
        (list[Frozen], [Frozen(Point(1), Color.RED), Frozen(Point(2), Color.BLUE)]),
        (Movie, {"title": "x"}),
        (Movie, {"title": "x", "seen": datetime(2024, 1, 1)}),
        (Rated, {"title": "x", "stars": 3}),
        (Partial, {"title": "x"}),
        (Account, Account(addresses=[Address(city="x", zone=1.5)])),
        (Account, Account(anything=(1, {2}, datetime(2024, 1, 1)))),
        (Account, Account(anything=float("inf"), balance=Decimal("1.50"))),
        (list[Account | None], [Account(), None]),
        (Aliased, Aliased.model_validate({"A": 1, "read_b": 2})),
        (Linked, Linked(url=HttpUrl("https://example.org/"), color=Color.RED)),
        (Pet, Pet(animal=Dog())),
        (Computed, Computed(n=1)),
        (Duck, Duck(1)),
        (Popping, Popping(n=1)),
        (Node, Node(next=Node(next=Node()))),
        (Numbers, Numbers([1, 2])),
    ],
)
def test_values_come_back_equal_and_of_their_type(annotation: Any, value: Any) -> None:
    restored = round_trip(annotation, value)
    assert restored == value
    assert type(restored) is type(value)
    assert repr(restored) == repr(value)


addresses = st.builds(Address, city=st.text(st.characters(exclude_categories=["Cs"])), zone=st.integers() | st.dates())
accounts = st.builds(
    Account,
    id=st.uuids(),
    when=st.datetimes(timezones=st.just(UTC)),
    balance=st.decimals(allow_nan=False, allow_infinity=False, places=2),
    addresses=st.lists(addresses, max_size=3),
    raw=st.binary(max_size=5),
)
movies = st.fixed_dictionaries(
    {"title": st.text(st.characters(exclude_categories=["Cs"]))}, optional={"seen": st.datetimes()}
)
users: st.SearchStrategy[User] = st.deferred(
    lambda: st.builds(
        User,
        st.uuids(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | st.datetimes(),
        st.dictionaries(st.integers(), st.floats(allow_nan=False), max_size=2),
        st.lists(users, max_size=1),
    )
)


@given(st.lists(users, max_size=2), st.lists(accounts, max_size=2), st.lists(movies, max_size=2))
def test_records_of_every_kind_come_back_equal(people: list[User], money: list[Account], films: list[Movie]) -> None:
    assert round_trip(list[User], people) == people
    assert round_trip(list[Account], money) == money
    assert round_trip(list[Movie], films) == films


def test_a_dataclass_is_restored_as_it_was_and_not_made_anew() -> None:
    priced = Priced(10.0)
    assert round_trip(Priced, priced) == priced
    assert round_trip(Priced, priced).gross == 12.0


def test_a_cached_property_is_no_hidden_state() -> None:
    lazy = Lazy(3)
    assert lazy.square == 9
    assert round_trip(Lazy, lazy).square == 9


def test_what_was_set_on_a_model_is_remembered() -> None:
    address = round_trip(Address, Address(city="x"))
    assert address.model_fields_set == {"city"}
    assert address.model_dump(exclude_unset=True) == {"city": "x"}


def test_a_default_that_differs_each_time_is_kept() -> None:
    account = Account()
    assert round_trip(Account, account).id == account.id


def test_a_time_zone_inside_a_model_comes_back_as_the_zone() -> None:
    moment = datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert round_trip(Account, Account(when=moment)).when.tzinfo is ZoneInfo("Europe/Berlin")


def test_a_union_whose_members_changed_places_is_not_misread() -> None:
    written = codec_for(Point | Loose | Frozen, where="load").dump(Loose(1, 2))
    assert codec_for(Frozen | Loose | Point, where="load").load(written) == Loose(1, 2)
    written = codec_for(Literal["draft", "public"], where="load").dump("draft")
    assert codec_for(Literal["public", "draft"], where="load").load(written) == "draft"


@pytest.mark.parametrize("annotation", [Sequence[int], str | bytes | None, Point | Loose])
@pytest.mark.parametrize("stored", [b"1", b'{"$":["int","0x5"]}', b'{"$":["float","nan"]}'])
def test_a_union_without_numbers_takes_none(annotation: Any, stored: bytes) -> None:
    with pytest.raises(CodecError):
        codec_for(annotation, where="load").load(stored)


class TitleOnly(TypedDict):
    title: str


@dataclass
class Before:
    a: int
    b: int


@dataclass
class After:
    a: int


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (Before, Before(1, 2), After),
        (After, After(1), Before),
        (Movie, {"title": "x", "seen": datetime(2024, 1, 1)}, TitleOnly),
        (dict[str, int], {}, Movie),
        (dict[str, str], {"town": "x"}, Address),
    ],
)
def test_values_whose_class_has_changed_are_refused(before: Any, value: Any, after: Any) -> None:
    data = codec_for(before, where="load").dump(value)
    with pytest.raises(CodecError, match="the stored bytes are no"):
        codec_for(after, where="load").load(data)


def _with_attribute() -> User:
    user = User(UUID(int=1), "a")
    user.note = "x"  # type: ignore[attr-defined]
    return user


def _without_field() -> User:
    user = User(UUID(int=1), "a")
    del user.name
    return user


def _with_note() -> Noted:
    noted = Noted(n=1)
    noted._note = "x"
    return noted


def _labelled() -> LabelledPoint:
    point = LabelledPoint(1)
    point.label = "x"  # type: ignore[attr-defined]
    return point


def _cyclic_user() -> User:
    user = User(UUID(int=1), "a")
    user.friends.append(user)
    return user


def _cyclic_node() -> Node:
    node = Node()
    node.next = node
    return node


@pytest.mark.parametrize(
    ("annotation", "value", "name"),
    [
        (User, Admin(UUID(int=1), "a"), "Admin"),
        (User, {"id": 1}, "dict"),
        (User, User(UUID(int=1), 5), "int"),  # type: ignore[arg-type]
        (User, _with_attribute(), "note"),
        (User, _without_field(), "name"),
        (User, _cyclic_user(), "refers to itself"),
        (Any, User(UUID(int=1), "a"), "User"),
        (Any, Point(1), "Point"),
        (Any, Cat(), "Cat"),
        (Point, LabelledPoint(1), "LabelledPoint"),
        (LabelledPoint, _labelled(), "label"),
        (Point, (1, Decimal(2)), "tuple"),
        (Movie, {"seen": datetime(2024, 1, 1)}, "title"),
        (Movie, {"title": "x", "more": 1}, "more"),
        (Movie, {"title": 5}, "int"),
        (Partial, {"stars": 1}, "title"),
        (Open, Open(2), "Open"),
        (Duckling, Duckling(1), "Duckling"),
        (Color, Rank.LOW, "Rank"),
        (int, Rank.LOW, "Rank"),
        (Literal[1], True, "bool"),
        (Literal["a"], "b", "Literal"),
        (Literal["a"], [], "list"),
        (int | str, 1.5, "float"),
        (int | bytes, bytearray(), "bytearray"),
        (list[int] | None, ["a"], "str"),
        (list[int] | list[str], [1.5], "float"),
        (Sequence[str], "text", "str"),
        (Account, BigAccount(), "BigAccount"),
        (Account, {"id": 1}, "dict"),
        (Secret, Secret(password=SecretStr("x")), "Secret"),
        (Doubled, Doubled(n=1), "Doubled"),
        (Noted, _with_note(), "Noted"),
        (Account, Account(anything=object()), "Account"),
        (Account, Account(anything=Cat()), "Account"),
        (Address, Address(city="\ud800"), "Address"),
        (Node, _cyclic_node(), "Node"),
    ],
)
def test_values_that_would_come_back_otherwise_are_refused(annotation: Any, value: Any, name: str) -> None:
    codec = codec_for(annotation, where="shop.load")
    with pytest.raises(CodecError, match=rf"shop\.load: .*{name}"):
        codec.dump(value)


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (Iterator[int], "Iterator"),
        (Iterable[int], "Iterable"),
        (Callable[[int], str], "Callable"),
        (Callable, "Callable"),
        (Awaitable[int], "Awaitable"),
        (Response, "Response"),
        (io.StringIO, "StringIO"),
        (io.IOBase, "IOBase"),
        (type[int], "type"),
        (T, "T"),
        ("Nowhere", "Nowhere .* not be resolved"),
        (list["Nowhere"], "Nowhere"),  # type: ignore[name-defined]  # noqa: F821
        (list[Iterator[int]], "Iterator"),
        (dict[str, object | Callable[[], int]], "Callable"),
        (int | io.StringIO, "StringIO"),
        (Box, "T"),
        (Box[int], "Box"),
        (Holder, "Iterator"),
        (Unresolved, "Nowhere"),
        (Listing, "Listing"),
        (WithHiddenSlot, "secret"),
    ],
)
def test_annotations_whose_values_cannot_come_back_are_refused_at_once(annotation: Any, name: str) -> None:
    with pytest.raises(CodecError, match=rf"shop\.load: .*{name}"):
        codec_for(annotation, where="shop.load")


def test_a_model_that_is_refused_does_not_warn_as_well() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CodecError, match="Address"):
            codec_for(Address, where="load").dump(Address.model_construct(city=5))
    assert caught == []


def test_a_flag_with_an_unknown_bit_is_refused() -> None:
    codec = codec_for(Bits, where="load")
    assert codec.load(b"1") is Bits.ONE
    with pytest.raises(CodecError, match="the stored bytes are no"):
        codec.load(b"8")


def test_two_classes_of_one_name_in_a_union_are_refused() -> None:
    def make() -> Any:
        @dataclass
        class Same:
            a: int

        return Same

    with pytest.raises(CodecError, match="same name"):
        codec_for(Union[make(), make()], where="load")  # noqa: UP007


def test_a_codec_says_what_it_is_for() -> None:
    codec: ValueCodec = codec_for(list[User | None], where="shop.load")
    assert repr(codec).startswith("<codec of shop.load for list[")


@pytest.mark.parametrize("annotation", [User, list[Account], Frozen, Movie])
def test_each_load_makes_a_fresh_record(annotation: Any) -> None:
    values = {
        User: User(UUID(int=1), "a", friends=[]),
        Frozen: Frozen(Point(1), Color.RED, [1]),
        Movie: {"title": "a"},
    }
    codec = codec_for(annotation, where="load")
    data = codec.dump(values.get(annotation, [Account()]))
    first, second = codec.load(data), codec.load(data)
    assert first == second
    assert first is not second
    for name in ("friends", "scores", "extra"):
        if hasattr(first, name):
            assert getattr(first, name) is not getattr(second, name)
