from __future__ import annotations

from typing import Any

import pytest
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser

from asgi_tiercache.config import Policy
from asgi_tiercache.keys.request import Pass, RequestKey, RequestKeys
from tests.keys.scopes import http_scope

PLAIN = Policy(ttl=60)
CARRIED: dict[str, dict[str, Any]] = {
    "authorization": {"headers": [(b"authorization", b"Bearer x")]},
    "cookie": {"headers": [(b"cookie", b"session=x")]},
    "session": {"session": {"id": 1}},
    "user": {"user": SimpleUser("ann")},
    "auth": {"auth": AuthCredentials(["authenticated"])},
}


class Visitor(UnauthenticatedUser):
    """Not logged in, and not nobody either."""


@pytest.mark.parametrize("name", CARRIED)
def test_a_credential_that_the_policy_does_not_know_passes_by(name: str) -> None:
    assert RequestKeys(PLAIN).of(http_scope(**CARRIED[name])) == Pass(name)
    assert RequestKeys(PLAIN.but(strict=False)).of(http_scope(**CARRIED[name])) == Pass(name)


@pytest.mark.parametrize("name", CARRIED)
def test_an_ignored_credential_makes_no_other_key(name: str) -> None:
    keys = RequestKeys(PLAIN.but(ignore=[name]))
    assert keys.of(http_scope(**CARRIED[name])) == keys.of(http_scope())


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("covered", CARRIED)
def test_ignoring_one_credential_covers_no_other(name: str, covered: str) -> None:
    key = RequestKeys(PLAIN.but(ignore=[covered])).of(http_scope(**CARRIED[name]))
    assert isinstance(key, RequestKey) == (name == covered)


@pytest.mark.parametrize("name", CARRIED)
def test_a_user_covers_every_credential(name: str) -> None:
    keys = RequestKeys(PLAIN.but(user=lambda scope: "ann"))
    assert isinstance(keys.of(http_scope(**CARRIED[name])), RequestKey)


@pytest.mark.parametrize(
    ("policy", "covered"),
    [
        (PLAIN.but(vary_on=["authorization"]), {"authorization"}),
        (PLAIN.but(vary_on=["cookie"]), {"cookie"}),
        (PLAIN.but(cookies=["session"]), {"cookie"}),
    ],
)
def test_a_keyed_header_covers_itself_only(policy: Policy, covered: set[str]) -> None:
    keys = RequestKeys(policy)
    made = {name for name, carried in CARRIED.items() if isinstance(keys.of(http_scope(**carried)), RequestKey)}
    assert made == covered


@pytest.mark.parametrize(
    "nobody",
    [
        {"session": {}},
        {"session": None},
        {"user": UnauthenticatedUser(), "auth": AuthCredentials()},
        {"user": None, "auth": None},
    ],
)
def test_nobody_is_no_credential(nobody: dict[str, Any]) -> None:
    assert isinstance(RequestKeys(PLAIN).of(http_scope(**nobody)), RequestKey)
    assert not RequestKeys(Policy.http()).credentialed(http_scope(**nobody))


def test_a_visitor_who_is_somebody_passes_by() -> None:
    assert RequestKeys(PLAIN).of(http_scope(user=Visitor())) == Pass("user")


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("policy", [Policy.http(), Policy.rfc9111()], ids=["http", "rfc9111"])
def test_in_http_mode_credentials_neither_pass_by_nor_make_another_key(policy: Policy, name: str) -> None:
    keys = RequestKeys(policy)
    assert keys.of(http_scope(**CARRIED[name])) == keys.of(http_scope())


def test_in_http_mode_every_credential_is_told() -> None:
    keys = RequestKeys(Policy.http())
    assert not keys.credentialed(http_scope())
    assert all(keys.credentialed(http_scope(**carried)) for carried in CARRIED.values())


def test_the_rfc_knows_authorization_only() -> None:
    keys = RequestKeys(Policy.rfc9111())
    assert {name for name in CARRIED if keys.credentialed(http_scope(**CARRIED[name]))} == {"authorization"}


@pytest.mark.parametrize(
    "options",
    [{"ignore": ["cookie"]}, {"cookies": ["session"]}, {"vary_on": ["cookie"]}, {"user": lambda scope: "ann"}],
)
def test_in_http_mode_what_is_keyed_or_ignored_is_not_told(options: dict[str, Any]) -> None:
    assert not RequestKeys(Policy.http(**options)).credentialed(http_scope(**CARRIED["cookie"]))
