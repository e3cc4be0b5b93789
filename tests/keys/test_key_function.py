from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from asgi_tiercache.errors import ConfigError, KeyingError
from asgi_tiercache.keys.function import FunctionKey, FunctionKeys

MODULE = __name__


def load(user_id: object, lang: object = "en") -> None: ...


async def load_async(user_id: object, lang: object = "en") -> None: ...


def collect(first: int, *rest: object, flag: bool = False, **named: object) -> None: ...


def everything(*args: object) -> None: ...


class Service:
    def load(self, user_id: int) -> None: ...

    def __call__(self, user_id: int) -> None: ...


def key(
    function: Callable[..., object], /, *args: object, options: dict[str, Any] | None = None, **kw: Any
) -> FunctionKey:
    return FunctionKeys(function, **{"template": None, **(options or {})}).of(args, kw)


def test_a_template_makes_the_key() -> None:
    keys = FunctionKeys(load, template="user:{user_id}:{lang}")
    assert keys.of((7,), {}).text == "user:7:en"
    assert keys.of((), {"lang": "d:*", "user_id": "u:v"}).text == "user:u%3Av:d:%2A"


def test_a_namespace_begins_the_key() -> None:
    keys = FunctionKeys(load, template="user:{user_id}:{lang}", namespace="shop")
    assert keys.of((7,), {}).text == "shop:user:7:en"


def test_values_that_are_written_alike_stay_apart_in_the_canonical_form() -> None:
    keys = FunctionKeys(load, template="user:{user_id}", ignore=["lang"])
    number, text = keys.of((7,), {}), keys.of(("7",), {})
    assert number.text == text.text
    assert number.canonical != text.canonical


def test_without_a_template_the_name_and_a_hash_make_the_key() -> None:
    made = key(load, 7, options={"digest": lambda data: "h"})
    assert made.text == f"fn:{MODULE}.load:h"
    assert key(load, 7, options={"namespace": "shop"}).text.startswith(f"shop:fn:{MODULE}.load:")


@pytest.mark.parametrize("template", [None, "user:{user_id}:{lang}"])
def test_the_way_of_passing_arguments_does_not_count(template: str | None) -> None:
    keys = FunctionKeys(load, template=template)
    spellings: list[tuple[tuple[object, ...], dict[str, object]]] = [
        ((7,), {}),
        ((7, "en"), {}),
        ((), {"user_id": 7}),
        ((7,), {"lang": "en"}),
    ]
    assert len({keys.of(args, kwargs)[:2] for args, kwargs in spellings}) == 1
    assert keys.of((7,), {}).arguments == {"user_id": 7, "lang": "en"}


def test_different_calls_and_functions_have_different_keys() -> None:
    made = [
        key(load, 1),
        key(load, "1"),
        key(load, True),
        key(load, 1.0),
        key(load, 1, "de"),
        key(load, 1, options={"version": "2"}),
        key(load_async, 1),
        key(load, [1]),
        key(load, (1,)),
    ]
    assert len({one.text for one in made}) == len({one.canonical for one in made}) == len(made)


def test_a_version_starts_a_template_afresh() -> None:
    one, other = (FunctionKeys(load, template="u:{user_id}:{lang}", version=v).of((1,), {}) for v in ("1", "2"))
    assert one.text == other.text
    assert one.canonical != other.canonical


def test_a_renamed_parameter_starts_a_template_afresh() -> None:
    def renamed(name: object) -> None: ...

    one = FunctionKeys(load, template="user:{user_id}", ignore=["lang"]).of((1,), {})
    other = FunctionKeys(renamed, template="user:{name}").of((1,), {})
    assert one.text == other.text
    assert one.canonical != other.canonical


@pytest.mark.parametrize("template", [None, "user:{user_id}"])
def test_an_ignored_argument_counts_nowhere(template: str | None) -> None:
    keys = FunctionKeys(load, template=template, ignore=["lang"])
    one, other = keys.of((7, "de"), {}), keys.of((7, object()), {})
    assert one[:2] == other[:2]
    assert one.arguments["lang"] == "de"


def test_collected_arguments_count_each() -> None:
    made = [
        key(collect, 1),
        key(collect, 1, 2),
        key(collect, 1, 2, 3),
        key(collect, 1, (2, 3)),
        key(collect, 1, flag=True),
        key(collect, 1, other=True),
        key(everything, 1, 2),
        key(everything, (1, 2)),
    ]
    assert len({one.canonical for one in made}) == len(made)
    assert key(collect, 1, a=1, b=2) == key(collect, 1, b=2, a=1)


def test_a_wrapped_function_counts_by_its_own_signature() -> None:
    @functools.wraps(load)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        load(*args, **kwargs)

    assert key(wrapper, 7) == key(load, user_id=7)
    assert FunctionKeys(wrapper, template="user:{user_id}:{lang}").of((7,), {}).text == "user:7:en"


def test_a_collision_of_hashes_gives_one_text_and_two_canonical_forms() -> None:
    keys = FunctionKeys(load, template=None, digest=lambda data: "0")
    assert keys.of((1,), {}).text == keys.of((2,), {}).text
    assert keys.of((1,), {}).canonical != keys.of((2,), {}).canonical


def test_arguments_cannot_be_read_from_a_key_without_template() -> None:
    made = key(load, "s3cr3t")
    assert "s3cr3t" not in made.text
    assert b"s3cr3t" not in made.canonical


def test_none_and_long_values_fill_a_template() -> None:
    keys = FunctionKeys(load, template="user:{user_id}:{lang}")
    assert keys.of((None,), {}).text == "user:none:en"
    assert len(keys.of(("u" * 1000,), {}).text) <= 256


@pytest.mark.parametrize("template", [None, "user:{user_id}:{lang}"])
def test_an_argument_without_a_form_is_an_error_that_names_it(template: str | None) -> None:
    keys = FunctionKeys(load, template=template)
    with pytest.raises(KeyingError, match=rf"{MODULE}\.load: argument 'lang': a Service has no canonical form"):
        keys.of((1,), {"lang": Service()})


def test_an_argument_that_fits_no_template_is_an_error_that_names_it() -> None:
    keys = FunctionKeys(load, template="user:{user_id}:{lang}")
    with pytest.raises(KeyingError, match=rf"{MODULE}\.load: 'user_id': a list has no canonical text"):
        keys.of(([1],), {})


def test_an_object_whose_method_is_cached_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyingError, match=r"Service\.load: argument 'self': a Service has no canonical form"):
        key(Service.load, Service(), 1)
    keys = FunctionKeys(Service.load, template="user:{user_id}", ignore=["self"])
    assert keys.of((Service(), 1), {}).text == "user:1"


def test_arguments_that_the_function_does_not_take_are_its_own_error() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        key(load, 1, nonsense=2)


@pytest.mark.parametrize(
    ("function", "template", "ignore", "message"),
    [
        (load, "user:{user_id}", [], r"template: parameter 'lang' of .*load is neither in 'user:\{user_id\}' nor in"),
        (load, "user:{user_id}:{lang}:{x}", [], r"template: .*load has no parameter 'x'"),
        (load, "user:{user_id.x}:{lang}", [], r"template: \{user_id\.x\}"),
        (load, "user:{user_id}:{lang}", ["x"], r"ignore: .*load has no parameter 'x'"),
        (load, None, ["x"], r"ignore: .*load has no parameter 'x'"),
        (everything, "all:{args}", [], r"template: 'args' of .*everything collects arguments"),
        (everything, "all", [], r"template: parameter 'args' of .*everything is neither"),
        (lambda x: x, None, [], r"template: .*<lambda> has no name of its own"),
        (functools.partial(load, 1), None, [], r"template: functools\.partial has no name of its own"),
        (Service().load, None, [], r"template: .*Service\.load has no name of its own"),
        (Service(), None, [], r"template: .*Service has no name of its own"),
        (max, "a", [], r"function: builtins\.max does not tell its parameters"),
    ],
)
def test_a_function_that_cannot_be_keyed_is_a_configuration_error(
    function: Any, template: str | None, ignore: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        FunctionKeys(function, template=template, ignore=ignore)


def test_an_inner_function_needs_a_template() -> None:
    def inner(user_id: int) -> None: ...

    with pytest.raises(ConfigError, match=r"<locals>\.inner has no name of its own, so its key needs a template"):
        FunctionKeys(inner, template=None)
    assert FunctionKeys(inner, template="inner:{user_id}").of((1,), {}).text == "inner:1"


def test_templates_that_make_the_same_keys_have_one_identity() -> None:
    def other(name: str) -> None: ...

    one = FunctionKeys(load, template="user:{user_id}", ignore=["lang"])
    two = FunctionKeys(other, template="user:{name}")
    assert one.identity == two.identity == "user:{}"
    assert FunctionKeys(load, template=None).identity == f"fn:{MODULE}.load"
    assert one.name == f"{MODULE}.load"
    assert repr(one) == f"<FunctionKeys of {MODULE}.load, user:{{}}>"
