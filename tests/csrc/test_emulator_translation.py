"""The emulator refuses PTX that it does not know, and builds what has changed only."""

import pytest
from emulator import build
from emulator.ptx import Unsupported, parse
from emulator.translate import translate

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
REGISTERS = ".reg .pred %p<9>; .reg .b16 %h<9>; .reg .f32 %f<9>; .reg .b32 %r<9>; .reg .b64 %d<9>; .reg .f64 %e<9>;"


def _entry(*statements, name="kernel", parameters="", directives=""):
    body = "\n".join(f"{statement};" for statement in statements)
    return f"{HEADER}.visible .entry {name}({parameters})\n{directives}\n{{ {REGISTERS}\n{body}\nret;\n}}\n"


@pytest.mark.parametrize(
    "statement",
    [
        "add.s32 %r1, %r2, 0xffffffff",
        "fma.rz.ftz.sat.f32 %f1, %f2, %f3, 0f3F800000",
        "@!%p1 ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {%f1, %f2, _, %r4}, [%d1+-16]",
        "cvt.rn.relu.bf16x2.f32 %r1, %f1, %f2",
        "{ .reg .b16 low, high; mov.b32 {low, high}, %r1; mul.f16 %h1, low, high; }",
        "setp.lt.and.f32 %p1|%p2, %f1, %f2, !%p3",
        "cp.async.ca.shared.global.L2::128B [%r1+4], [%d1], 4, %r2",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1, %f2, %f3, %r4}, %d1, %d2, %p1, 1, 1, 0, 1",
        "fence.proxy.async",
    ],
)
def test_is_translated(statement):
    (text,) = translate(_entry(statement), "kernel.cu")
    assert "entry_0" in text


@pytest.mark.parametrize(
    "statement, reason",
    [
        ("frobnicate.b32 %r1, %r2", "opcode frobnicate"),
        ("add.frob.s32 %r1, %r2, %r3", "modifier .frob"),
        ("add.rz.s32 %r1, %r2, %r3", "modifier .rz"),
        ("add.rz.f16 %h1, %h2, %h3", ".rz of .f16"),
        ("fma.f32 %f1, %f2, %f3, %f4", "none of .rn"),
        ("cvt.f32.f64 %f1, %e1", "without a rounding"),
        ("cvt.bf16.f32 %h1, %f1", "without a rounding"),
        ("cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2", "no type"),
        ("add.s64 %d1, %r2, %d3", "%r2 is .b32, which is read as .u64"),
        ("mov.f32 %f1, %d1", "%d1 is .b64"),
        ("mov.u32 %r1, %clock", "operand %clock"),
        ("mov.u32 %r1, %r10", "operand %r10"),
        ("ld.global.L2::cache_hint.f32 %f1, [%d1], %d2", "policy of the cache"),
        ("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%r1,%r2},{%r3,%r4},{%r5},{%r1,%r2}", "a product"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%r1, %r2}, %d1, %d2, %p1, 1, 1, 0, 0", "a product"),
        ("wgmma.mma_async.sync.aligned.m64n8k8.f32.f16.f16 {%f1,%f2,%f3,%f4}, %d1, %d2, 1, 1, 1, 0, 0", "a product"),
        ("wgmma.mma_async.sp.sync.aligned.m64n8k16.f32.f16.f16 {%f1}, %d1, %d2, %r1, 0, 1, 1, 1", "a product"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2}, %d1, %d2, 1, 1, 1, 0, 0", "the registers"),
        ("wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%f1,%f2,%f3,%f4}, {%r1,%r2,%r3,%r4}, %d2, 1, 1, 1",
         "a from registers"),
        ("wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%f1,%f2,%f3,%f4}, %d1, %d2, 1, 1, 1, 0, 1", "layouts"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1,%f2,%f3,%f4}, %d1, %d2, 1, -1, 1, 0, 0", "scales"),
        ("fence.proxy.async.global", "modifier .global"),
        ("fence.proxy.alias", "none of .async"),
        ("cp.async.cg.shared.global [%r1], [%d1], 8", "a copy of 8 bytes"),
        ("cp.async.bulk.commit_group", "modifier .bulk"),
        ("call.uni foo, ()", "not inlined"),
        ("bra $nowhere", "label"),
        ("min.xorsign.abs.f32 %f1, %f2, %f3", "modifier .xorsign"),
        ("lop3.or.b32 %r1|%p1, %r2, %r3, %r4, 0x3f, %p2", "operand %r1|%p1"),
    ],
)
def test_is_refused(statement, reason):
    with pytest.raises(Unsupported) as refused:
        translate(_entry(statement, name="some_kernel"), "kernel.cu")
    message = str(refused.value)
    assert message.startswith("some_kernel: ") and statement.split()[0] in message and reason in message


def test_parameters_are_laid_out():
    parameters = [".u32 a", ".u64 .ptr .global .align 16 b", ".align 16 .b8 c[20]", ".u8 d", ".f64 e"]
    text = ", ".join(f".param {parameter}" for parameter in parameters)
    (entry,) = parse(_entry(parameters=text, directives=".maxntid 64, 2, 1 .minnctapersm 2")).entries
    assert [(p.offset, p.size) for p in entry.parameters] == [(0, 4), (8, 8), (16, 20), (36, 1), (40, 8)]
    assert (entry.parameter_bytes, entry.max_threads) == (48, 128)


def test_registers_of_a_scope_hide_others():
    (entry,) = parse(_entry("{ .reg .b16 %r1; mov.b16 %r1, %h1; bra done; done: }", "mov.b32 %r1, %r2")).entries
    inner, jump, label, outer, _ = entry.body
    assert inner.operands[0] != outer.operands[0] == "%r1"
    assert jump.operands == [label.name]
    assert entry.registers[inner.operands[0]] == "b16" and entry.registers["%r1"] == "b32"


@pytest.mark.slow
@pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))
def test_nothing_is_built_twice(tmp_path, monkeypatch):
    source, header = tmp_path / "tiny.cu", tmp_path / "tiny.h"
    source.write_text('#include "tiny.h"\n__global__ void tiny(int* x) { *x = kNumber; }\n')
    header.write_text("constexpr int kNumber = 1;\n")
    first = build.library("tiny", [source])
    with monkeypatch.context() as patch:
        patch.setattr(build, "run", lambda command: pytest.fail(f"ran {command}"))
        assert build.library("tiny", [source]) == first
    header.write_text("constexpr int kNumber = 22;\n")
    assert build.library("tiny", [source]) != first
