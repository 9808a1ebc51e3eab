"""Path templates to handlers: `/v1/{name}/documents/{id}`, and `{key:rest}` for all that follows.

A path is split before it is decoded, so that `%2F` stays inside its segment. A fixed segment is
preferred to a parameter, and a parameter to a rest, at every step. Templates without parameters
are found with one look-up, the others with one step a segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

from engines.kit.errors import LocalError, Reason, RequestError

PATH_BYTES_MAX = 8192

Handler = TypeVar("Handler")

_PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]*)(:rest)?\}")


class MethodNotAllowedError(RequestError):
    """The path is known, the method is not; `allowed` goes into the Allow header."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(Reason.UNSUPPORTED, f"method {method} is not allowed here")
        self.allowed = allowed


@dataclass(slots=True)
class _Target(Generic[Handler]):
    """What one template leads to: a handler for each method, and the names of its parameters."""

    template: str
    names: tuple[str, ...]
    handlers: dict[str, Handler] = field(default_factory=dict)

    def allowed(self) -> tuple[str, ...]:
        """Return the methods of the path for an Allow header."""
        methods = {*self.handlers, "OPTIONS"}
        return tuple(sorted(methods | {"HEAD"} if "GET" in methods else methods))


@dataclass(slots=True)
class _Node(Generic[Handler]):
    fixed: dict[str, _Node[Handler]] = field(default_factory=dict)
    parameter: _Node[Handler] | None = None
    rest: _Target[Handler] | None = None
    target: _Target[Handler] | None = None


@dataclass(slots=True)
class Match(Generic[Handler]):
    """A found handler. None for an OPTIONS request that nobody handles: then `allowed` answers."""

    handler: Handler | None
    template: str
    params: dict[str, str]
    allowed: tuple[str, ...] = ()


class Router(Generic[Handler]):
    """The routes of one engine."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target[Handler]] = {}
        self._plain: dict[bytes, _Target[Handler]] = {}
        self._root: _Node[Handler] = _Node()

    def add(self, methods: str | Iterable[str], template: str, handler: Handler) -> None:
        """Register `handler` for one method or several."""
        if template not in self._targets:
            self._targets[template] = self._plant(template)
        target = self._targets[template]
        for method in (methods,) if isinstance(methods, str) else methods:
            if method in target.handlers:
                raise LocalError(f"{method} {template} is registered twice")
            target.handlers[method] = handler

    def find(self, method: str, raw_path: bytes) -> Match[Handler]:
        """Return the handler for a path as it stood in the request line.

        Raises RequestError: NOT_FOUND, MALFORMED, LIMIT; MethodNotAllowedError.
        """
        target = self._plain.get(raw_path)
        params: dict[str, str] = {}
        if target is None:
            target, params = self._search(raw_path)
        handler = target.handlers.get(method)
        if handler is None and method == "HEAD":
            handler = target.handlers.get("GET")
        if handler is not None:
            return Match(handler, target.template, params)
        if method != "OPTIONS":
            raise MethodNotAllowedError(method, target.allowed())
        return Match(None, target.template, params, target.allowed())

    def _plant(self, template: str) -> _Target[Handler]:
        """Add a template to the tree."""
        if not template.startswith("/"):
            raise LocalError(f"a template begins with '/': {template}")
        segments = template[1:].split("/")
        matches = [_PARAMETER.fullmatch(segment) for segment in segments]
        names = tuple(match[1] for match in matches if match)
        target = _Target[Handler](template, names)
        node = self._root
        for segment, match in zip(segments, matches, strict=True):
            if match and match[2]:
                if segment is not segments[-1] or node.rest:
                    raise LocalError(f"a rest must be last and alone: {template}")
                node.rest = target
                return target
            if match:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(segment, _Node())
        if node.target:
            raise LocalError(f"{template} is the same as {node.target.template}")
        node.target = target
        if not names:
            self._plain[template.encode()] = target
        return target

    def _search(self, raw_path: bytes) -> tuple[_Target[Handler], dict[str, str]]:
        if len(raw_path) > PATH_BYTES_MAX:
            raise RequestError(Reason.LIMIT, "the path is too long")
        try:
            segments = raw_path.decode().split("/")
            if b"%" in raw_path:
                segments = [unquote(segment, errors="strict") for segment in segments]
        except UnicodeDecodeError as error:
            raise RequestError(Reason.MALFORMED, "the path is not UTF-8") from error
        found = _walk(self._root, segments, 1, []) if segments[0] == "" else None
        if found is None:
            raise RequestError(Reason.NOT_FOUND, "there is nothing at this path")
        target, values = found
        return target, dict(zip(target.names, values, strict=True))


def _walk(
    node: _Node[Handler], segments: list[str], index: int, values: list[str]
) -> tuple[_Target[Handler], list[str]] | None:
    """Return the target below `node` for the segments from `index` on. As deep as templates are."""
    if index == len(segments):
        return (node.target, values) if node.target else None
    segment = segments[index]
    found = None
    if segment in node.fixed:
        found = _walk(node.fixed[segment], segments, index + 1, values)
    # A parameter is never empty: "/v1//x" is not the x of a nameless thing.
    if found is None and node.parameter and segment:
        found = _walk(node.parameter, segments, index + 1, [*values, segment])
    if found is None and node.rest:
        rest = "/".join(segments[index:])
        found = (node.rest, [*values, rest]) if rest else None
    return found
