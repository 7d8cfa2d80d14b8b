"""What modules are made of at one time, for what was derived of it to be used as long as it holds."""

from __future__ import annotations

from operator import eq, getitem, is_
from typing import Callable, Iterable

from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CONSTANTS = (bool, int, float, str, tuple, type(None))


class Snapshot:
    """Modules and all below: their classes, attributes, children, and the sizes and layouts of their tensors.

    Values of parameters and buffers are not part of it. Comparing takes tenths of a microsecond a module's attribute,
    since no loop is Python's own.
    """

    def __init__(self, roots: Iterable[nn.Module], methods: Iterable[str]) -> None:
        """methods: whose replacement on a module's class is noticed. Raises ValueError where a later state could not be
        told from this one."""
        self._modules = [module for root in roots for module in root.modules()]
        self._classes = list(map(type, self._modules))
        self._methods = [(kind, name, getattr(kind, name, None)) for kind in set(self._classes) for name in methods]
        self._attributes = [dict(vars(module)) for module in self._modules]
        if not all(map(_is_constant, self._attributes)):
            raise ValueError("attributes may change and remain the same objects")
        self._tables = [own[name] for name in _TABLES for own in self._attributes]
        self._lengths = list(map(len, self._tables))
        entries = [(table, name, value) for table in self._tables for name, value in table.items()]
        self._of, self._names, self._values = map(list, zip(*entries))
        self._hooks = [own[name] for name in _HOOKS for own in self._attributes]
        self._tensors = [t for t in self._values if isinstance(t, Tensor) and t.dim() > 0]  # not counts of batches
        self._forms = list(map(_form, self._tensors))

    def holds(self) -> bool:
        try:
            spaces = list(map(vars, self._modules))
            return (
                all(map(is_, map(type, self._modules), self._classes))
                and all([getattr(kind, name, None) is method for kind, name, method in self._methods])
                and all(map(is_, [own[name] for name in _TABLES for own in spaces], self._tables))
                and all(map(eq, spaces, self._attributes))
                and not any(self._hooks)
                and all(map(eq, map(len, self._tables), self._lengths))
                and all(map(is_, map(getitem, self._of, self._names), self._values))
                and all(map(eq, map(_form, self._tensors), self._forms))
            )
        except Exception:  # keys that are gone, values that cannot be compared
            return False


def _is_constant(attributes: dict) -> bool:
    """What torch keeps of a module is compared apart, or is none of what a call depends on."""
    return all(name.startswith("_") or isinstance(value, _CONSTANTS) for name, value in attributes.items())


def _form(t: Tensor) -> tuple:
    return t.dtype, t.device, t.shape, t.stride()
