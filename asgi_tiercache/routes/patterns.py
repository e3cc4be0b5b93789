"""The keys of `routes=`: exact paths, path templates, prefixes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.routing import PARAM_REGEX, compile_path

from asgi_tiercache.config import METHODS, Policy
from asgi_tiercache.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What somebody said about some paths; compared and hashed by identity."""

    key: str
    """The key of `routes=`; `""` where `@cache.response` said it."""
    policy: Policy | None
    """None: never cached."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it speaks for, HEAD with GET; "never cached" is said of all."""
        return METHODS if self.policy is None else tuple(self.policy.methods)

    def speaks_for(self, method: str) -> bool:
        """Whether it says anything about requests with `method`."""
        return self.policy is None or self.policy.caches(method)

    @property
    def is_prefix(self) -> bool:
        """Whether the key speaks for everything below a path."""
        return self.key.endswith("/*")

    @property
    def is_template(self) -> bool:
        """Whether the key has parameters."""
        return PARAM_REGEX.search(self.key) is not None


@dataclass(frozen=True, slots=True)
class _Template:
    rule: Rule
    regex: re.Pattern[str]
    convertors: Mapping[str, Convertor[Any]]


class Keys:
    """The mapping given as `routes=`, checked and sorted into the three kinds of key.

    Raises:
        ConfigError: a key or a value is no such thing; the option is `routes['<key>']`.
    """

    def __init__(self, routes: Mapping[str, Policy | None]) -> None:
        self.rules = tuple(_rule(key, value) for key, value in routes.items())
        self.by_form: dict[str, Rule] = {}
        """Exact paths and templates, by `normal_form`; the first of several equal ones."""
        self.clashes: list[tuple[Rule, Rule]] = []
        """Pairs of keys that differ only in the names and converters of their parameters."""
        self._literals: dict[str, Rule] = {}
        self._templates: list[_Template] = []
        self._prefixes: list[tuple[str, Rule]] = []
        for rule in self.rules:
            self._add(rule)
        self._prefixes.sort(key=lambda prefix: len(prefix[0]), reverse=True)

    def literal(self, path: str) -> Rule | None:
        """The rule for exactly this path."""
        return self._literals.get(path)

    def template(self, path: str, method: str) -> tuple[Rule, dict[str, Any]] | None:
        """The first template, in the order given, that the path fits; with the parameters, converted."""
        for template in self._templates:
            if template.rule.speaks_for(method) and (match := template.regex.match(path)):
                texts = match.groupdict()
                # A converter may refuse what its expression admits: `int` fails on thousands of digits.
                with contextlib.suppress(Exception):
                    return template.rule, {name: template.convertors[name].convert(texts[name]) for name in texts}
        return None

    def prefix(self, path: str, *methods: str) -> Rule | None:
        """The rule with the longest prefix of the path, of those that speak for one of `methods`."""
        for prefix, rule in self._prefixes:
            if path.startswith(prefix) and any(map(rule.speaks_for, methods)):
                return rule
        return None

    def _add(self, rule: Rule) -> None:
        if rule.is_prefix:
            self._prefixes.append((rule.key[:-1], rule))
            return
        first = self.by_form.setdefault(normal_form(rule.key), rule)
        if first is not rule:
            self.clashes.append((first, rule))
        if rule.is_template:
            regex, _, convertors = compile_path(rule.key)
            self._templates.append(_Template(rule, regex, convertors))
        else:
            self._literals[rule.key] = rule


def normal_form(template: str) -> str:
    """The template without the names and converters of its parameters: equal for what names the same paths."""
    return PARAM_REGEX.sub("\0", template)


def parameter_names(template: str) -> frozenset[str]:
    """The names of the template's parameters."""
    return frozenset(match[1] for match in PARAM_REGEX.finditer(template))


def route_path(scope: Mapping[str, Any]) -> str:
    """The request's path as the app's router sees it: below `root_path`, where it begins with that."""
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    return rest if not rest or rest.startswith("/") else path


def _rule(key: str, value: Policy | None) -> Rule:
    option = f"routes[{key!r}]"
    if not isinstance(key, str) or not key.startswith("/"):
        raise ConfigError(option, "a path, a template or a prefix begins with '/'")
    if value is not None and not isinstance(value, Policy):
        raise ConfigError(option, f"must be a Policy, or None for never cached, not {value!r}")
    if "*" in key.removesuffix("/*"):
        raise ConfigError(option, "'*' stands at the end, after a '/', and nowhere else")
    _check_parameters(option, key)
    return Rule(key, value)


def _check_parameters(option: str, key: str) -> None:
    if re.search(r"[{}]", PARAM_REGEX.sub("", key)):
        raise ConfigError(option, "malformed: a parameter is written {name} or {name:converter}")
    parameters = [match.groups("") for match in PARAM_REGEX.finditer(key)]
    if parameters and key.endswith("/*"):
        raise ConfigError(option, "a prefix has no parameters")
    for _, convertor in parameters:
        if convertor and convertor[1:] not in CONVERTOR_TYPES:
            raise ConfigError(option, f"there is no path converter {convertor[1:]!r}")
    if len({name for name, _ in parameters}) < len(parameters):
        raise ConfigError(option, "names a parameter twice")
