"""The route table: for each request the route that the app would run, and the policy that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from starlette.routing import Router

from asgi_tiercache.config import METHODS, Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.routes import checks, fastapi
from asgi_tiercache.routes.patterns import Keys, Rule, normal_form, route_path
from asgi_tiercache.routes.tree import Leaf, Tree, build, unknown_leaf, with_head

_MAX_REMEMBERED = 4_096
_MAX_REMEMBERED_PATH = 512
"""Characters. Longer paths are decided each time: clients choose them, and must not fill our memory."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where requests go, together with what goes for them; compared and hashed by identity.

    A route has one for each key of `routes=` that may speak for it. The same object comes back until the app's
    routes change.
    """

    template: str
    """The route's path template as it was written, with the prefixes of mounts and routers; where no route is
    known, the key of `routes=`; `""` where there is neither."""
    endpoint: object | None
    policy: Policy | None
    """None: never cached."""
    named: bool
    """False where the policy is just the default."""
    takes_head: bool = False
    """Whether a route is known that takes HEAD where its methods say so."""
    dependant: object | None = field(default=None, repr=False)
    credentials: frozenset[str] = frozenset()
    """The headers, in lower case, that the route declares to read credentials from."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision for one request."""

    target: Target
    path_params: Mapping[str, Any]
    """As the router converts them; read-only."""


_NO_ROUTER = Router()
_UNDECIDED = Choice(Target("", None, None, False), _NOTHING)


class RouteTable:
    """The routes of an app with their policies.

    Routes added to the app later are found where a route list grew, shrank or was replaced.

    Args:
        app: The ASGI app, as in `scope["app"]`. One that shows no routes is judged by path alone.
        routes: Policies by exact path (`"/config"`), path template (`"/videos/{id}"`) or prefix (`"/static/*"`);
            None for never cached. Paths count below `root_path`.
        default: The policy where nothing else applies.
        mark: Returns the policy that `@cache.response` put on an endpoint, or None.

    Raises:
        ConfigError: a key or value of `routes` is malformed; the message names the key.
    """

    def __init__(
        self,
        app: object,
        routes: Mapping[str, Policy | None],
        default: Policy | None,
        *,
        mark: Callable[[object], Policy | None],
    ) -> None:
        self._app = app
        self._keys = Keys(routes)
        self._default = default
        self._mark = mark
        self.generation = 0
        """Raised whenever the routes are read anew; targets of an older one do not come back."""
        self._load()

    def __repr__(self) -> str:
        routes = len(self._leaves) if self._tree else "unknown"
        return f"<{type(self).__name__} routes={routes} named={len(self._bound)}>"

    def choose(self, scope: Mapping[str, Any]) -> Choice:
        """The route that the app's router would run, with its policy; `scope` is left as it is.

        In order: the exact path in `routes=`; the policy of the route, by template or mark; the longest prefix; the
        default. An exact path or a template counts only where the router runs some route.

        Args:
            scope: An ASGI scope of type `http`, with a method of `methods`. A policy counts for its own methods only.
        """
        if self._router.routes is not self._routes:
            self._load()
        for routes, length in self._lists:
            if len(routes) != length:
                self._load()
                break
        # Parameters of a mount around this app come with the scope, not with the path.
        if scope.get("path_params"):
            return self._decide(scope)
        key: tuple[object, ...] = (scope["path"], scope["method"], scope.get("root_path"))
        if self._hosts:
            key = (*key, _host(scope))
        try:
            return self._remembered[key]
        except KeyError:
            return self._remember(key, self._decide(scope), scope["path"])

    def check(self) -> list[str]:
        """Check what cannot be known without the app's routes; to be called once, at start.

        Returns:
            Warnings: keys of `routes=` that name no route, policies of endpoints whose methods they do not cache.

        Raises:
            ConfigError: a policy does not fit its route. The message names the route and what to change.
        """
        for first, second in self._keys.clashes:
            raise ConfigError(f"routes[{second.key!r}]", f"names the same paths as {first.key!r}; keep one of them")
        if self._default is not None:
            checks.check_user(self._default, "default")
        for leaf in self._leaves:
            self._check_leaf(leaf)
        return [warning for rule in self._keys.rules for warning in self._check_key(rule)] + self._check_marks()

    def may_store(self, scope: Mapping[str, Any]) -> bool:
        """Whether something can be stored under the path of the request in `scope`, whatever its own method.

        No, where requests with each method that is cached would go to a route without a policy: then the middleware has
        looked up none of them, and nothing that it has stored carries that path. Yes, where such a request has no route
        at all: the app's 404 or 405 may say how long it is fresh, and the default policy would store it. Yes, where a
        class of the user's decides by its own `matches`: that may tell two requests of one path apart.
        """
        if self._tree is not None and self._tree.custom:
            return True
        return any(self.choose({**scope, "method": method}).target.policy is not None for method in self.methods)

    def takes(self, target: Target, method: str) -> bool:
        """Whether a request with `method`, GET or HEAD, has a route to go to, as far as the app shows its routes."""
        return method == "GET" or target.takes_head or self._tree is None

    def dependants(self, target: Target) -> list[object]:
        """The FastAPI `Dependant` objects whose `call` runs the endpoint of `target`; none for other routes."""
        return [] if target.dependant is None else [target.dependant]

    def _load(self) -> None:
        self.generation += 1
        self._tree: Tree | None = build(self._app)
        leaves = self._tree.leaves if self._tree else []
        self._leaves = [leaf for leaf in leaves if leaf.takes_any(METHODS)]
        self._router = self._tree.router if self._tree else _NO_ROUTER
        self._routes = self._router.routes
        self._lists = tuple((routes, len(routes)) for routes in self._tree.lists) if self._tree else ()
        self._hosts = self._tree is not None and self._tree.hosts
        self._bound = {leaf: rule for leaf in self._leaves if (rule := self._rule_of(leaf))}
        policies = (self._default, *(rule.policy for rule in (*self._keys.rules, *self._bound.values())))
        self.methods = frozenset(method for policy in policies if policy is not None for method in policy.methods)
        """The methods that some policy caches; GET stands for HEAD, too."""
        self._targets: dict[tuple[Leaf | None, Rule | None, bool], Target] = {}
        self._remembered: dict[tuple[object, ...], Choice] = {}

    def _rule_of(self, leaf: Leaf) -> Rule | None:
        if (rule := self._key_of(leaf)) is not None:
            return rule
        policy = self._marked(leaf)
        if policy is not None and not leaf.takes_any(policy.methods):
            return None
        return Rule("", policy) if policy is not None else None

    def _key_of(self, leaf: Leaf) -> Rule | None:
        """The key of `routes=` that names the route; what names paths below an opaque one is told by the path."""
        rule = None if leaf.opaque else self._keys.by_form.get(normal_form(leaf.template))
        return rule if rule is not None and leaf.takes_any(rule.methods) else None

    def _marked(self, leaf: Leaf) -> Policy | None:
        return None if leaf.endpoint is None else self._mark(leaf.endpoint)

    def _remember(self, key: tuple[object, ...], choice: Choice, path: str) -> Choice:
        custom = self._tree is not None and self._tree.custom
        if not custom and len(path) <= _MAX_REMEMBERED_PATH:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = choice
        return choice

    def _decide(self, scope: Mapping[str, Any]) -> Choice:
        if self._tree is None:
            return self._by_path(None, route_path(scope), _NOTHING, scope["method"])
        try:
            found = self._tree.find(scope)
        except Exception:
            # A converter that cannot take the text (`int` on thousands of digits) or a `matches` that fails. The
            # router comes to the same error a moment later, and the app answers with it.
            return _UNDECIDED
        path = self._tree.path_of(scope)
        if found is None:
            method = scope["method"]
            return Choice(self._target(None, self._keys.prefix(path, method), method), _NOTHING)
        return self._by_path(found[0], path, found[1], scope["method"])

    def _by_path(self, leaf: Leaf | None, path: str, path_params: Mapping[str, Any], method: str) -> Choice:
        rule = self._keys.literal(path)
        if (rule is None or not rule.speaks_for(method)) and leaf is not None:
            rule = self._bound.get(leaf)
        if rule is not None and not rule.speaks_for(method):
            rule = None
        # Where the routes behind are not known, a template is as good as the path that it fits.
        if rule is None and (leaf is None or leaf.opaque) and (fit := self._keys.template(path, method)):
            rule, path_params = fit[0], {**path_params, **fit[1]}
        target = self._target(leaf, rule or self._keys.prefix(path, method), method)
        return Choice(target, MappingProxyType(dict(path_params)))

    def _target(self, leaf: Leaf | None, rule: Rule | None, method: str) -> Target:
        policy = self._default if rule is None else rule.policy
        if policy is not None and not policy.caches(method):
            policy = None
        target = self._targets.get((leaf, rule, policy is None))
        if target is None:
            target = Target(
                template=leaf.template if leaf else rule.key if rule else "",
                endpoint=leaf.endpoint if leaf else None,
                policy=policy,
                named=rule is not None,
                takes_head=leaf is not None and (not leaf.opaque or leaf.methods is not None),
                dependant=leaf.dependant if leaf else None,
                credentials=fastapi.credential_headers(leaf.dependant) if leaf and leaf.dependant else frozenset(),
            )
            self._targets[leaf, rule, policy is None] = target
        return target

    def _check_leaf(self, leaf: Leaf) -> None:
        marked = self._marked(leaf)
        rule = self._key_of(leaf)
        if marked is not None and leaf.takes_any(marked.methods):
            if rule is not None:
                raise ConfigError(
                    f"routes[{rule.key!r}]",
                    f"route {leaf.template} carries a policy of its own, by @cache.response; keep one of the two",
                )
            checks.check_user(marked, f"route {leaf.template}")
            checks.check_route(leaf, marked, named=True)
        elif rule is None and self._default is not None:
            methods = self._default.methods
            if leaf.takes_any(methods) and self._keys.prefix(leaf.template, *methods) is None:
                checks.check_route(leaf, self._default, named=False)

    def _check_marks(self) -> list[str]:
        """Warnings: endpoints with a policy that caches none of the methods of their routes."""
        useless: dict[object, tuple[Leaf, Policy]] = {}
        used: set[object] = set()
        for leaf in self._tree.leaves if self._tree else ():
            policy = self._marked(leaf)
            if policy is not None and leaf.takes_any(policy.methods):
                used.add(leaf.endpoint)
            elif policy is not None:
                useless.setdefault(leaf.endpoint, (leaf, policy))
        return [
            checks.unused_mark(leaf, policy) for endpoint, (leaf, policy) in useless.items() if endpoint not in used
        ]

    def _check_key(self, rule: Rule) -> list[str]:
        leaves = self._leaves_of(rule)
        if rule.policy is not None:
            checks.check_user(rule.policy, f"routes[{rule.key!r}]")
            for leaf in leaves:
                checks.check_route(leaf, rule.policy, named=not rule.is_prefix)
        if leaves or rule.is_prefix:
            return []
        methods = " or ".join(with_head(rule.methods if rule.policy is not None else ("GET",)))
        return [f"routes[{rule.key!r}] has no effect: no route of the app answers {methods} there"]

    def _leaves_of(self, rule: Rule) -> list[Leaf]:
        """The routes that the key may speak for, as far as can be told without a request."""
        if self._tree is None:
            return [unknown_leaf(rule.key)]
        named = [leaf for leaf in self._leaves if self._key_of(leaf) is rule]
        if rule.is_template:
            return named or [unknown_leaf(rule.key) for leaf in self._leaves if leaf.covers(rule.key)]
        if not rule.is_prefix:
            return named + [leaf for leaf in self._tree.serving(rule.key, rule.methods) if leaf not in named]
        unbound = [leaf for leaf in self._leaves if leaf not in self._bound and leaf.takes_any(rule.methods)]
        return [
            leaf for leaf in unbound if self._keys.prefix(leaf.template, *rule.methods) is rule or leaf.covers(rule.key)
        ]


def _host(scope: Mapping[str, Any]) -> bytes | None:
    """The `Host` header as it was sent: in part what a `Host` route decides by."""
    return next((value for name, value in scope["headers"] if name == b"host"), None)
