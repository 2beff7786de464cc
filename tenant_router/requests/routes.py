"""The names that a route goes by in ``WHITELIST_ROUTES``."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from django.conf import settings
from django.urls import URLResolver, get_resolver
from django.urls.resolvers import ResolverMatch
from django.utils import translation


def names_of(match: ResolverMatch) -> set[str]:
    """The four spellings of a route: view path, view class path, route, (namespaced) name."""
    view_class = getattr(match.func, "view_class", None)
    names = {match._func_path, match.route, match.view_name}
    if view_class is not None:
        names.add(f"{view_class.__module__}.{view_class.__qualname__}")
    return names


def unmatched(names: Collection[str]) -> set[str]:
    """Those of ``names`` that no route of ``ROOT_URLCONF`` goes by, in whatever language. Imports the URLconf."""
    left = set(names)
    languages = [settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES)] if settings.USE_I18N else [None]
    for language in languages:  # the text of a route may be translated, or begin with the language
        if not left:
            break
        with translation.override(language):
            for match in _matches(get_resolver(), "", []):
                left -= names_of(match)
    return left


def _matches(resolver: URLResolver, route: str, namespaces: list[str | None]) -> Iterator[ResolverMatch]:
    """What each route below ``resolver`` resolves to, as ``URLResolver.resolve`` puts it together."""
    for pattern in resolver.url_patterns:
        text = str(pattern.pattern)
        joined = route + text.removeprefix("^") if route else text
        if isinstance(pattern, URLResolver):
            inner = [*namespaces, pattern.namespace] if pattern.namespace else namespaces
            yield from _matches(pattern, joined, inner)
        else:
            yield ResolverMatch(pattern.callback, (), {}, pattern.name, [], namespaces, joined)
