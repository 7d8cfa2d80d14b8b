"""What modules are made of at one time, for what was derived of it to be used as long as it holds."""

from __future__ import annotations

import weakref
from itertools import chain, compress, repeat
from operator import attrgetter, is_, is_not, itemgetter
from typing import Any, Iterable, Sequence

from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORM = attrgetter("dtype", "device", "shape")
_CONSTANTS = (bool, int, float, str, tuple, type(None))


class Snapshot:
    """Modules and all below: their classes, attributes, children, and the sizes and layouts of their tensors.

    The values of parameters and buffers are not part of it. Nothing is kept alive. Comparing takes microseconds a
    module, since no inner loop is Python's own.
    """

    def __init__(self, roots: Iterable[nn.Module], methods: Iterable[str]) -> None:
        """methods: whose replacement on a module's class is noticed. Raises ValueError where a later state could not be
        told from this one."""
        modules = [module for root in roots for module in root.modules()]
        spaces = list(map(vars, modules))
        self._modules = list(map(weakref.ref, modules))
        self._classes = list(map(type, modules))
        self._methods = [(kind, name, getattr(kind, name, None)) for kind in set(self._classes) for name in methods]
        self._names = _keys(spaces)
        # What torch keeps of a module, by names that begin so, is compared apart, or is none of what a call depends on.
        own = [[name for name in space if not name.startswith("_")] for space in spaces]
        self._getters = [itemgetter(*names) if names else len for names in own]
        self._attributes = [get(space) for get, space in zip(self._getters, spaces)]
        if not all(isinstance(space[name], _CONSTANTS) for names, space in zip(own, spaces) for name in names):
            raise ValueError("attributes may change and remain the same objects")
        tables = _tables(spaces)
        self._keys = _keys(tables)
        values = list(chain.from_iterable(map(dict.values, tables)))
        self._held = list(map(is_not, values, repeat(None)))
        self._values = [weakref.ref(value) for value in values if value is not None]
        self._is_tensor = [isinstance(value, Tensor) for value in values]
        self._forms = _forms(list(compress(values, self._is_tensor)))

    def has(self, tensors: Iterable[Tensor | None]) -> bool:
        """Whether all of them are its modules' own."""
        known = {id(value()) for value in self._values}
        return all(t is None or id(t) in known for t in tensors)

    def holds(self) -> bool:
        try:
            modules = [module() for module in self._modules]
            spaces = list(map(vars, modules))
            tables = _tables(spaces)
            values = list(chain.from_iterable(map(dict.values, tables)))
            return (
                all(map(is_, map(type, modules), self._classes))
                and all([getattr(kind, name, None) is method for kind, name, method in self._methods])
                and _keys(spaces) == self._names
                and [get(space) for get, space in zip(self._getters, spaces)] == self._attributes
                and not any(chain.from_iterable(map(_HOOKS, spaces)))
                and _keys(tables) == self._keys
                and list(map(is_not, values, repeat(None))) == self._held
                and all(map(is_, compress(values, self._held), [value() for value in self._values]))
                and _forms(list(compress(values, self._is_tensor))) == self._forms
            )
        except Exception:  # modules that are gone, values that cannot be compared
            return False


def _tables(spaces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [space[name] for name in _TABLES for space in spaces]


def _keys(tables: Sequence[dict[str, Any]]) -> tuple[list[int], list[str]]:
    return list(map(len, tables)), list(chain.from_iterable(tables))


def _forms(tensors: list[Tensor]) -> tuple[list, ...]:
    return list(map(type, tensors)), list(map(_FORM, tensors)), list(map(Tensor.stride, tensors))
