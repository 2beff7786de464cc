"""What objects of ``elasticsearch.dsl`` keep is their tenant's: answers of searches, and documents that were read.

A ``Search`` keeps its answer in ``_response`` and executes itself where it has none (``execute`` in
elasticsearch/dsl/_sync/search.py), so a search of a module would show everybody what the first one has found. A
document knows its id and no tenant, so it would be saved over another tenant's document of that id.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.es_orm.dsl import packages
from tenant_router.tenant_context import DeniedContext

_MARK = "tenant_id"  # in a document's ``meta``, which pickles and copies take along and requests do not


def install(aliases: Collection[str]) -> None:
    """Guard the classes of the packages that are installed. ``aliases``: those of the templates. Idempotent."""
    uninstall()
    for package in packages():
        _put(_base_of(package.Search), "_response", _Kept())
        for document in _documents(package):
            _put(document, "from_es", classmethod(functools.partial(_read, document.from_es.__func__, aliases)))
            _put(document, "to_dict", _written_out(document.to_dict))
            for name in ("save", "update", "delete"):
                _put(document, name, _refusing(getattr(document, name), aliases))


def uninstall() -> None:
    """Undo :func:`install`."""
    while _undo:
        _undo.pop()()


class _Answers(WeakKeyDictionary[Any, dict[str, Any]]):
    """By unit of work, and in it by tenant. A copy of a search, or its pickle, starts with none."""

    def __deepcopy__(self, memo: Any) -> _Answers:
        return _Answers()

    def __reduce__(self) -> Any:
        return _Answers, ()


class _Kept:
    """``_response`` of a request: of the unit of work and the tenant that are bound; else the process's, as without us.

    Each unit has its own, because searches of a module are executed in many threads at once.
    """

    def __get__(self, request: Any, owner: Any = None) -> Any:
        if request is None:
            return self
        kept = _answers(request, {})
        if "_response" not in kept:
            raise AttributeError("_response")
        return kept["_response"]

    def __set__(self, request: Any, response: Any) -> None:
        _answers(request, None)["_response"] = response

    def __delete__(self, request: Any) -> None:
        _answers(request, {}).pop("_response", None)


def _answers(request: Any, otherwise: Any) -> Any:
    """Where the answer of ``request`` is; a new place, if ``otherwise`` is ``None``, where there is none."""
    bound = _context.bound()
    if not bound:
        return request.__dict__
    by_unit = request.__dict__.get("_answers")
    if by_unit is None:
        by_unit = request.__dict__.setdefault("_answers", _Answers())
    found = by_unit.get(bound[0])
    if found is None and otherwise is None:
        found = by_unit.setdefault(bound[0], {})
    key = bound[-1].id
    return otherwise if found is None else found.setdefault(key, {}) if otherwise is None else found.get(key, otherwise)


def _read(original: Callable[..., Any], aliases: Collection[str], cls: Any, hit: Any) -> Any:
    document = original(cls, hit)
    _mark(document, aliases, None)
    return document


def _mark(document: Any, aliases: Collection[str], using: Any) -> None:
    """``document`` is the bound tenant's, unless its alias is none of the tenants'."""
    alias, tenant_id = using or type(document)._index._using, _bound_id()
    if tenant_id is not None and (not isinstance(alias, str) or alias in aliases):
        document.meta._d_[_MARK] = tenant_id


def _refuse_foreign(document: Any) -> None:
    origin, tenant_id = document.meta._d_.get(_MARK), _bound_id()
    if origin is not None and tenant_id is not None and origin != tenant_id:
        raise TenantMismatch(
            f"a document {type(document).__qualname__} of tenant {origin!r} is used while {tenant_id!r} is bound: "
            "make a new one of its values"
        )


def _bound_id() -> str | None:
    found = _context.current()
    return None if found is None or isinstance(found, DeniedContext) else found.id


def _refusing(original: Callable[..., Any], aliases: Collection[str]) -> Callable[..., Any]:
    """``original``, which writes the document: refused for another tenant's; afterwards it is the bound tenant's."""

    @functools.wraps(original)
    def guarded(self: Any, using: Any = None, *args: Any, **kwargs: Any) -> Any:
        _refuse_foreign(self)
        done = original(self, using, *args, **kwargs)
        _mark(self, aliases, using)
        return done

    @functools.wraps(original)
    async def guarded_async(self: Any, using: Any = None, *args: Any, **kwargs: Any) -> Any:
        _refuse_foreign(self)
        done = await original(self, using, *args, **kwargs)
        _mark(self, aliases, using)
        return done

    return guarded_async if inspect.iscoroutinefunction(original) else guarded


def _written_out(original: Callable[..., Any]) -> Callable[..., Any]:
    """``to_dict``: with its index and id it is an action of the bulk helpers."""

    @functools.wraps(original)
    def guarded(self: Any, include_meta: bool = False, *args: Any, **kwargs: Any) -> Any:
        if include_meta:
            _refuse_foreign(self)
        return original(self, include_meta, *args, **kwargs)

    return guarded


def _documents(package: Any) -> Iterator[Any]:
    for name in ("Document", "AsyncDocument"):
        if hasattr(package, name):
            yield getattr(package, name)


def _base_of(search: type) -> type:
    """What searches, several at once and updates by query have in common."""
    return next(base for base in search.__mro__ if base.__name__ == "Request")


_undo: list[Callable[[], None]] = []


def _put(owner: Any, name: str, value: Any) -> None:
    before = owner.__dict__.get(name)
    type.__setattr__(owner, name, value)
    _undo.append(lambda: type.__delattr__(owner, name) if before is None else type.__setattr__(owner, name, before))
