"""Finding a route by its path as the framework does: whole paths first, then segment by segment, a fixed one before an open."""

from collections.abc import Iterable
from typing import Generic, TypeVar

R = TypeVar("R")


class _Node(Generic[R]):
    """What may follow a segment."""

    __slots__ = ("fixed", "open", "routes")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node[R]] = {}
        self.open: _Node[R] | None = None
        #: what ends here, by method, with the names of the open segments
        self.routes: dict[str, tuple[R, tuple[str, ...]]] = {}


class Paths(Generic[R]):
    """All templates, `/v1/members/{sub:str}`; only some of them lead anywhere, the others stand in the way."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._whole: dict[str, dict[str, R]] = {}
        self._root: _Node[R] = _Node()
        for template in templates:
            if "{" in template:
                self._node(template)
            else:
                self._whole.setdefault(template, {})

    def add(self, template: str, method: str, route: R) -> None:
        if "{" in template:
            names = tuple(part[1:].partition(":")[0] for part in template.split("/") if part.startswith("{"))
            self._node(template).routes[method] = route, names
        else:
            self._whole.setdefault(template, {})[method] = route

    def find(self, method: str, path: str) -> tuple[R, dict[str, str]] | None:
        """The route and its open segments; None where there is none, or where the framework must say."""
        whole = self._whole.get(path)
        if whole is not None:
            route = whole.get(method)
            return None if route is None else (route, {})
        node, values = self._root, []
        for part in path.split("/")[1:]:
            following = node.fixed.get(part)
            if following is None:
                if node.open is None or not part:
                    return None
                following = node.open
                values.append(part)
            node = following
        found = node.routes.get(method)
        return None if found is None else (found[0], dict(zip(found[1], values, strict=True)))

    def _node(self, template: str) -> _Node[R]:
        node = self._root
        for part in template.split("/")[1:]:
            if not part.startswith("{"):
                node = node.fixed.setdefault(part, _Node())
                continue
            if node.open is None:
                node.open = _Node()
            node = node.open
        return node
