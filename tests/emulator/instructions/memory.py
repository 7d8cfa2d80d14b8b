"""Loads, stores, atomics and asynchronous copies. `p` is where the bytes are, after the checks."""

import re

from ..operands import SINK, cpp_type, identifier, integer, unsigned, vector
from ..ptx import BITS, Unsupported
from . import handles

_ORDERS = ("weak", "relaxed", "acquire", "release", "acq_rel", "volatile")
_SCOPES = ("cta", "cluster", "gpu", "sys")
_CACHES = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified")
_SPACES = ("global", "shared", "local", "param", "const")


def _space(m):
    m.ignore(*_CACHES)
    m.rest = ["shared" if part == "shared::cta" else part for part in m.rest]
    return m.one_of(*_SPACES, default="generic")


def _pointer(t, operand, space, size, access):
    """A C++ expression: the checked pointer to `size` bytes."""
    pointer = _checked(t, operand, space, size, access)
    told = t.reads_by_async_proxy and access != "kRead" and space in ("shared", "generic")
    return f"written(lane, {pointer}, {size})" if told else pointer


def _checked(t, operand, space, size, access):
    if space == "param":
        return f"reinterpret_cast<const u8*>({t.address(operand, 'u64')})"
    if space == "local":
        array = t.locals.get(re.sub(r"[\[\]\s]|\+.*", "", operand)) or _only(t.locals)
        begin = identifier(array.name)
        return f"check_local(lane, {t.site()}, {begin}, {array.size}, {t.address(operand, 'u64')}, {size})"
    if space == "shared":
        return f"shared_memory<{size}>(lane, {t.site()}, {t.address(operand, 'u32')}, Access::{access})"
    address = t.address(operand, "u64")
    if space == "generic":
        return f"check_generic(lane, {t.site()}, {address}, {size}, Access::{access})"
    return f"global_memory<{size}>(lane, {t.site()}, {address}, Access::{access})"


def _only(variables):
    if len(variables) != 1:
        raise Unsupported("local memory of several arrays")
    return next(iter(variables.values()))


def _order(m, default="weak"):
    """Other threads may access the same at the same time, unless it is weak. Scopes are all the same here."""
    order = m.one_of(*_ORDERS, default=default)
    m.one_of(*_SCOPES, default="none")
    return order


def _fenced(code, order):
    """Fences do not matter to lanes that run one after another, but ThreadSanitizer must know of them."""
    before = "memory_fence(lane); " if order in ("release", "acq_rel") else ""
    return before + code + (" memory_fence(lane);" if order in ("acquire", "acq_rel") else "")


@handles("ld", "ldu")
def load(t, i, m):
    order, space, kind = _order(m), _space(m), m.type()
    m.one_of("v2", "v4", default="one")
    targets = vector(i.operands[0])
    size = BITS[kind] // 8
    pointer = _pointer(t, i.operands[1], space, size * len(targets), "kRead")
    function = "peek" if order == "weak" else "peek_atomic"
    values = [t.write(target, kind, f"{function}<{cpp_type(kind)}>(p + {n * size})")
              for n, target in enumerate(targets) if target != SINK]  # fmt: skip
    return _fenced(f"{{ const u8* p = {pointer}; {' '.join(values)} }}", order)


@handles("st")
def store(t, i, m):
    order, space, kind = _order(m), _space(m), m.type()
    m.one_of("v2", "v4", default="one")
    sources = vector(i.operands[1])
    size = BITS[kind] // 8
    if space == "param" and re.match(r"\[([\w$.]+)", i.operands[0])[1] in t.entry.call_parameters:
        return ";"  # control.call() allows functions only whose arguments do not matter
    if space in ("param", "const"):
        raise Unsupported(f"st.{space}")
    pointer = _pointer(t, i.operands[0], space, size * len(sources), "kWrite")
    function = "poke" if order == "weak" else "poke_atomic"
    values = [f"{function}<{cpp_type(kind)}>(p + {n * size}, {t.read(source, kind)});"
              for n, source in enumerate(sources)]  # fmt: skip
    return _fenced(f"{{ u8* p = {pointer}; {' '.join(values)} }}", order)


@handles("atom", "red")
def atomic(t, i, m):
    order = _order(m, default="relaxed")
    m.flag("noftz")
    space, kind = _space(m), m.type()
    operation = m.one_of("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
    if space not in ("global", "shared", "generic"):
        raise Unsupported(f"atomics in .{space}")
    target, address, *values = i.operands if i.parts[0] == "atom" else [SINK, *i.operands]
    pointer = _pointer(t, address, space, BITS[kind] // 8, "kAtomic")
    if operation in ("inc", "dec") and kind != "u32":
        raise Unsupported(f"atom.{operation}.{kind}")
    read = kind if operation in ("add", "min", "max") else unsigned(kind)
    arguments = ", ".join(t.read(value, read) for value in values)
    function = {"and": "atomic_and", "or": "atomic_or", "xor": "atomic_xor"}.get(operation, f"atomic_{operation}")
    if not integer(kind) and kind not in ("f32", "f64"):
        if operation != "add":
            raise Unsupported(f"atom.{operation}.{kind}")
        function += "_narrow" + ("_pair" if kind.endswith("x2") else "")
        template = "BF16" if kind.startswith("b") else "F16"
    else:
        template = cpp_type(read)
    return _fenced(t.write(target, read, f"{function}<{template}>({pointer}, {arguments})"), order)


@handles("cvta")
def convert_address(t, i, m):
    """Global and local addresses are pointers, which are generic. Shared ones are offsets."""
    m.type()
    to = m.flag("to")
    space = _space(m)
    address = t.read(i.operands[1], "u64")
    if space == "shared":
        base = "reinterpret_cast<u64>(block.shared)"
        address = f"u64({address} {'-' if to else '+'} {base})"
    return t.write(i.operands[0], "u64", address)


@handles("isspacep")
def is_space(t, i, m):
    space, address = _space(m), t.read(i.operands[1], "u64")
    tests = {"shared": f"is_shared({address})", "local": f"is_local(lane, {address})",
             "global": f"!is_shared({address}) && !is_local(lane, {address})"}  # fmt: skip
    if space not in tests:
        raise Unsupported(f"isspacep.{space}")
    return t.write(i.operands[0], "pred", tests[space])


@handles("prefetch", "prefetchu", "applypriority", "discard")
def hint(t, i, m):
    m.rest = []
    return ";"


@handles("cp")
def copy(t, i, m):
    if not m.flag("async"):
        raise Unsupported("cp that is not cp.async")
    if m.flag("commit_group"):
        return "copy_commit(lane);"
    if m.flag("wait_all"):
        return "copy_wait_all(lane);"
    if m.flag("wait_group"):
        return f"copy_wait(lane, {int(i.operands[0], 0)});"
    m.ignore()
    m.rest = ["shared" if part == "shared::cta" else part for part in m.rest]
    cache = m.one_of("ca", "cg")
    m.one_of("shared")
    m.one_of("global")
    size = int(i.operands[2], 0)
    if size not in ((16,) if cache == "cg" else (4, 8, 16)):
        raise Unsupported(f"a copy of {size} bytes")
    source_size = t.read(i.operands[3], "u32") if len(i.operands) > 3 else str(size)
    to, source = t.address(i.operands[0], "u32"), t.address(i.operands[1], "u64")
    told = f" copied(lane, {to}, {size});" if t.reads_by_async_proxy else ""
    return f"copy_async(lane, {t.site()}, {to}, {source}, {size}, {source_size});{told}"
