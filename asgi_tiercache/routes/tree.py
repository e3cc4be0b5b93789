"""The app's route table as a tree that can be asked where a request would go.

The tree never decides by itself whether a route matches: it calls the route's own `matches`, in the router's
order, so converters, methods and classes of the user's count exactly as they do in the app.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Router, WebSocketRoute, compile_path

from asgi_tiercache.routes.patterns import parameter_names, route_path

_FILES = frozenset({"GET", "HEAD"})
_Scope: TypeAlias = dict[str, Any]
_Matcher: TypeAlias = Callable[[_Scope], tuple[Match, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A route that answers requests itself, or one behind which stands an app that shows no routes."""

    matches: _Matcher
    template: str
    """Full path template, with the prefixes of mounts and routers."""
    endpoint: object | None
    """None where the app behind is not known in detail."""
    methods: frozenset[str] | None
    """None: any, or not known."""
    parameters: frozenset[str]
    """The names of the path parameters, those of mounts and hosts included."""
    dependant: Any = None
    """FastAPI's description of what runs the endpoint; None elsewhere."""

    @property
    def opaque(self) -> bool:
        """Whether paths below this route are told apart only by the app behind it."""
        return self.endpoint is None

    def takes_any(self, methods: Iterable[str]) -> bool:
        """Whether the route answers one of `methods`, which a policy caches; HEAD goes with GET."""
        return self.methods is None or not self.methods.isdisjoint(with_head(methods))

    def covers(self, template: str) -> bool:
        """Whether paths of that template go to this route and are told apart by the app behind it."""
        return self.opaque and compile_path(self.template)[0].match(template) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A mount or a host with routes of its own. A router never comes back from one to try the next."""

    matches: _Matcher
    nodes: tuple[Leaf | Branch, ...]
    root_path: str
    """What a FastAPI app below sets as `root_path`, if anything."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The routes of an app, as found when it was built."""

    root: Branch
    router: Router
    """The app's own router."""
    leaves: list[Leaf]
    """In the order in which the router comes to them."""
    lists: list[list[BaseRoute]]
    """Every route list that was read, the router's own first; to be watched for additions."""
    hosts: bool
    """Whether the `Host` header has a say."""
    custom: bool
    """Whether some route decides by a `matches` of the user's, which may look at anything."""

    def find(self, scope: Mapping[str, Any]) -> tuple[Leaf, Mapping[str, Any]] | None:
        """The route that the app's router would run, and the path parameters, as the router converts them.

        None where it would run none: no route matches, or none with this method. What a user's own converter or
        `matches` raises is raised here, too.
        """
        return _find(self.root, dict(scope))

    def serving(self, path: str, methods: Iterable[str]) -> list[Leaf]:
        """The routes that requests for the path with `methods`, HEAD with GET, would run."""
        leaves: dict[Leaf, None] = {}
        for method in with_head(methods):
            scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
            # A `matches` of the user's may miss what a real request brings: then it is not known.
            with contextlib.suppress(Exception):
                found = self.find(scope)
                leaves.update({found[0]: None} if found else {})
        return list(leaves)

    def path_of(self, scope: Mapping[str, Any]) -> str:
        """The request's path as the outermost router sees it."""
        root_path = self.root.root_path
        return route_path({**scope, "root_path": root_path} if root_path else scope)


def with_head(methods: Iterable[str]) -> tuple[str, ...]:
    """`methods`, and HEAD where GET is among them."""
    return tuple(each for method in methods for each in ((method, "HEAD") if method == "GET" else (method,)))


def _find(branch: Branch, scope: _Scope) -> tuple[Leaf, Mapping[str, Any]] | None:
    if branch.root_path:
        scope["root_path"] = branch.root_path
    for node in branch.nodes:
        match, child_scope = node.matches(scope)
        if match is Match.FULL:
            scope.update(child_scope)
            return _find(node, scope) if isinstance(node, Branch) else (node, scope.get("path_params", {}))
    return None


def unknown_leaf(template: str) -> Leaf:
    """What stands for paths of an app that shows no routes."""
    return Leaf(_always, template, None, None, parameter_names(template))


def build(app: object) -> Tree | None:
    """The tree of `app`; None where it shows no routes (a plain ASGI app)."""
    inner = _routed(app, declared=False)
    if inner is None:
        return None
    survey = _Survey()
    root = survey.branch(_always, inner, _Place("", frozenset()))
    return Tree(root, _router(inner), survey.leaves, survey.lists, survey.hosts, survey.custom)


class _Place(NamedTuple):
    """What the routes around a route contribute to it."""

    prefix: str
    names: frozenset[str]

    def below(self, path: str) -> _Place:
        return _Place(self.prefix + path, self.names | parameter_names(path))

    def on_host(self, host: str) -> _Place:
        return _Place(self.prefix, self.names | parameter_names(host))


class _Survey:
    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.lists: list[list[BaseRoute]] = []
        self.hosts = False
        self.custom = False
        self._inside: list[Router] = []

    def branch(self, matches: _Matcher, app: Starlette | Router, place: _Place) -> Branch:
        router = _router(app)
        self._watch(router)
        self._inside.append(router)
        nodes = tuple(self._nodes(router.routes, place))
        self._inside.pop()
        return Branch(matches, nodes, getattr(app, "root_path", ""))

    def _watch(self, router: Router) -> None:
        self.lists.append(router.routes)
        for route in router.routes:
            if (included := getattr(route, "original_router", None)) is not None:
                self._watch(included)

    def _nodes(self, routes: Sequence[BaseRoute], place: _Place) -> Iterator[Leaf | Branch]:
        for route in routes:
            for view, original, matches in _views(route):
                if not isinstance(original, WebSocketRoute):
                    self.custom |= not _by_framework(type(original), "matches")
                    yield self._node(view, original, matches, place)

    def _node(self, view: Any, original: BaseRoute, matches: _Matcher, place: _Place) -> Leaf | Branch:
        if not isinstance(original, Mount | Host):
            return self._leaf(matches, place.below(getattr(view, "path", "")), view)
        self.hosts |= isinstance(original, Host)
        inside = place.below(view.path) if isinstance(original, Mount) else place.on_host(view.host)
        app = _routed(view.app, declared=bool(view.routes))
        if app is None or _router(app) in self._inside:
            below = inside._replace(prefix=inside.prefix + "/{path:path}")
            return self._leaf(matches, below, None, methods=_FILES if _sends_files(view.app) else None)
        return self.branch(matches, app, inside)

    def _leaf(self, matches: _Matcher, place: _Place, view: Any, *, methods: frozenset[str] | None = None) -> Leaf:
        methods = getattr(view, "methods", methods)
        leaf = Leaf(
            matches,
            place.prefix,
            getattr(view, "endpoint", None),
            frozenset(methods) if methods else None,
            place.names,
            getattr(view, "dependant", None),
        )
        self.leaves.append(leaf)
        return leaf


def _views(route: Any) -> Iterator[tuple[Any, BaseRoute, _Matcher]]:
    """The routes that `route` stands for: what shows path and endpoint, the object written down, its `matches`.

    FastAPI keeps an included router as one object in the route list and offers `iter_route_contexts` to see the
    routes in it with their prefixes; before it did, it copied them into the list.
    """
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    if contexts is None or not hasattr(route, "original_router"):
        yield route, route, route.matches
        return
    for context in contexts([route]):
        yield context, context.original_route, _context_matcher(context)


def _context_matcher(context: Any) -> _Matcher:
    original = context.original_route
    if not hasattr(original, "dependant") or _by_framework(type(original), "matches"):
        matcher: _Matcher = context.matches
        return matcher

    # A subclass of `APIRoute` with a `matches` of its own: FastAPI calls that one, and tells it by this key of the
    # scope with which prefix the route is included.
    def matches(scope: _Scope) -> tuple[Match, Mapping[str, Any]]:
        inside = {**scope, "fastapi": {"effective_route_context": context}}
        result: tuple[Match, Mapping[str, Any]] = original.matches(inside)
        return result

    return matches


def _routed(app: Any, *, declared: bool) -> Starlette | Router | None:
    """The app with a route table in `app` or below the middleware around it; None where there is none to be seen.

    A middleware of unknown making may send requests elsewhere than their path says, so the search ends there,
    unless the mount itself shows the routes behind it as its own (`declared`).
    """
    while app is not None and not isinstance(app, Starlette | Router):
        app = getattr(app, "app", None) if declared or _is_plain(app) else None
    return app if app is not None and _by_framework(type(_router(app)), "app") else None


def _sends_files(app: object) -> bool:
    static_files = getattr(sys.modules.get("starlette.staticfiles"), "StaticFiles", None)
    return static_files is not None and isinstance(app, static_files)


def _is_plain(middleware: object) -> bool:
    module = type(middleware).__module__
    return module.startswith("starlette.middleware.") and not hasattr(middleware, "dispatch_func")


def _router(app: Starlette | Router) -> Router:
    return app.router if isinstance(app, Starlette) else app


def _by_framework(owner: type, name: str) -> bool:
    """Whether the attribute `name` of the class is as Starlette or FastAPI wrote it."""
    definer = next((base for base in owner.__mro__ if name in vars(base)), owner)
    return definer.__module__.partition(".")[0] in ("starlette", "fastapi")


def _always(scope: _Scope) -> tuple[Match, Mapping[str, Any]]:
    return Match.FULL, {}
