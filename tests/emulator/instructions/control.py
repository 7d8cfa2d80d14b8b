"""Branches, barriers and fences."""

from ..ptx import Unsupported
from . import handles


@handles("bra")
def branch(t, i, m):
    m.flag("uni")
    return t.jump(i.operands[0])


@handles("brx")
def branch_by_index(t, i, m):
    m.one_of("idx")
    m.flag("uni")
    index, targets = t.read(i.operands[0], "u32"), t.targets.get(i.operands[1])
    if targets is None:
        raise Unsupported(f"branch targets {i.operands[1]}")
    cases = " ".join(f"case {n}: {t.jump(label)}" for n, label in enumerate(targets))
    return f"switch ({index}) {{ {cases} default: fail(lane, {t.site()}, \"no such branch target\"); }}"


@handles("ret", "exit")
def leave(t, i, m):
    m.flag("uni")
    return "return;"


@handles("trap", "brkpt")
def trap(t, i, m):
    return f'fail(lane, {t.site()}, "trap");'


@handles("call")
def call(t, i, m):
    m.flag("uni")
    if "__assertfail" not in i.operands:
        raise Unsupported("a function that is not inlined")
    return f'fail(lane, {t.site()}, "assertion failed");'


@handles("nanosleep")
def sleep(t, i, m):
    m.type()
    return "give_way(lane);"


@handles("membar", "fence")
def fence(t, i, m):
    if m.flag("proxy"):
        m.one_of("async")
        m.one_of("shared::cta", default="all")
        return "fence_async_proxy(lane);"
    m.flag("sc")
    m.flag("acq_rel")
    m.one_of("cta", "gl", "gpu", "sys", "cluster")
    return "memory_fence(lane);"


@handles("bar", "barrier")
def barrier(t, i, m):
    m.flag("cta")
    if m.flag("warp"):
        m.one_of("sync")
        return f"warp_barrier(lane, {t.site()}, {t.read(i.operands[0], 'u32')});"
    aligned = str(i.parts[0] == "bar" or m.flag("aligned")).lower()
    m.flag("aligned")
    kind = m.one_of("sync", "arrive", "red")
    if kind == "red":
        return _reduction(t, i, m, aligned)
    number, *threads = (t.read(operand, "u32") for operand in i.operands)
    function = "barrier" if kind == "sync" else "barrier_arrive"
    return f"{function}(lane, {t.site()}, {aligned}, {number}, {threads[0] if threads else 0});"


def _reduction(t, i, m, aligned):
    operation = m.one_of("popc", "and", "or")
    kind = m.type()
    target, number, *threads, value = i.operands
    count = t.read(threads[0], "u32") if threads else "0"
    call = (f"barrier_reduce(lane, {t.site()}, {aligned}, BarrierRed::k{operation.title()}, {t.read(value, 'pred')}, "
            f"{t.read(number, 'u32')}, {count})")  # fmt: skip
    return t.write(target, kind, call if kind == "u32" else f"bool({call})")
