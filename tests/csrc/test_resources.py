"""The kernels' registers, spills and instructions: the rules, and that the committed table is the sources' own."""

import ctypes
import itertools
from pathlib import Path

import pytest
from build_cache import run
from emulator import build
from resources import compilation, rules, sass, table
from resources.occupancy import LIMITS, blocks_per_sm

COMMITTED = table.read()
ROWS = COMMITTED.rows
OUT_OF_DATE = "tests/resources/kernels.json is out of date: run `make cubins` and look at what it changes"

needs_nvcc = pytest.mark.skipif(bool(compilation.why_not()), reason=str(compilation.why_not()))


def _assert_none(lines, message):
    assert not lines, "\n".join([f"{message} ({len(lines)})", *lines[:20]])


def _compare(architectures):
    rows = compilation.all_rows(architectures)
    everywhere = {row["kernel"] for row in rows if "Sm90" not in row["kernel"]}
    for arch in LIMITS:
        names = {row["kernel"] for row in ROWS if row["arch"] == arch}
        hopper = {name for name in names if "Sm90" in name and arch == "sm_90"}
        _assert_none(sorted(names - hopper ^ everywhere), f"{OUT_OF_DATE}: not in both")
    if compilation.nvcc_version() != COMMITTED.nvcc:
        pytest.skip(f"the table is of nvcc {COMMITTED.nvcc}, and here is {compilation.nvcc_version()}")
    assert compilation.setup_list("NVCC_FLAGS") == COMMITTED.flags, OUT_OF_DATE
    _assert_none(table.differences([row for row in ROWS if row["arch"] in architectures], rows), OUT_OF_DATE)


@pytest.mark.parametrize("arch", LIMITS)
def test_rules(arch):
    rows = [row for row in ROWS if row["arch"] == arch]
    assert rows
    _assert_none(rules.broken(rows), "kernels break the rules of tests/resources/rules.py")


def _row(**changes):
    row = dict.fromkeys(table.COLUMNS, 0) | {"kernel": "scale_kernel<__half, 8, true>", "activation.128": 3}
    return row | changes


CONV = "conv_fprop_kernel<MathHalf, Tile<128, 64, 4, 2>, true>"
HOPPER = CONV.replace("Half", "HalfSm90")


@pytest.mark.parametrize("row, reason", [
    (_row(), None),
    (_row(spill_stores=4), "spill_stores is 4"),
    (_row(LDL=1), "LDL is 1"),
    (_row(generic=1), "1 generic accesses"),
    (_row(**{"activation.32": 2}), "2 accesses of 32 bits"),
    (_row(**{"activation.128": 0}), "no access of 128 bits"),
    (_row(kernel="scale_kernel<__half, 1, true>", **{"activation.16": 2}), None),
    (_row(kernel="stem_pool_kernel<float, 4, true>", **{"activation.32": 9}), None),
    (_row(kernel="stem_pool_kernel<float, 4, true>", **{"activation.64": 9}), "9 accesses of 64 bits"),
    (_row(kernel=CONV), "no HMMA, no LDSM, no LDGSTS.128"),
    (_row(kernel=CONV, HMMA=1, LDSM=1, LDGSTS=1, generic=1, **{"LDGSTS.128": 1}), "1 generic accesses"),
    (_row(kernel=CONV, HMMA=64, LDSM=8, LDGSTS=6, **{"LDGSTS.128": 4}), "2 LDGSTS narrower than 128 bits"),
    (_row(kernel=CONV, HMMA=64, LDSM=8, LDGSTS=4, **{"LDGSTS.128": 4}), None),
    (_row(kernel=CONV.replace("true", "false"), HMMA=64), "no LDSM"),
    (_row(kernel=CONV.replace("true", "false"), HMMA=64, LDSM=8), None),
    (_row(kernel=CONV.replace("Half", "Ffma")), None),
    (_row(kernel=HOPPER), "no HMMA, no LDGSTS.128"),
    (_row(kernel=HOPPER, HMMA=2, LDSM=8, LDGSTS=4, **{"LDGSTS.128": 4}), "8 LDSM"),
    (_row(kernel=HOPPER, HMMA=2, LDGSTS=4, **{"LDGSTS.128": 4}), None),
])  # fmt: skip
def test_a_rule_is_broken(row, reason):
    lines = rules.broken([row])
    assert (reason in lines[0]) if reason else not lines


SASS = """
\t.section\t.text._Z5scalev,"ax",@progbits
\t//## File "/src/csrc/cuda/element.cuh", line 88 inlined at "/src/csrc/cuda/bn_apply.cuh", line 44
        /*0000*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0010*/             @!UP1 LDG.E.U16 R4, desc[UR4][R2.64] ;
\t//## File "/src/csrc/cuda/sweep.cuh", line 17
        /*0020*/                   LDG.E R4, desc[UR4][R2.64] ;
.L_x_0:
        /*0030*/                   LDGSTS.E.BYPASS.LTC128B.128 [R5], [R2.64] ;
        /*0040*/                   LDGSTS.E.LTC128B [R5], [R2.64] ;
        /*0050*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0070*/                   LD.E.64 R4, desc[UR4][R2.64] ;
        /*0080*/                   NOP ;
"""


def test_instructions_are_counted():
    counts = {column: count for column, count in sass.count(SASS)["_Z5scalev"].items() if count}
    assert counts == {
        "instructions": 8, "LDG.128": 1, "LDG.16": 1, "LDG.32": 1, "activation.128": 1, "activation.16": 1,
        "LDGSTS": 2, "LDGSTS.128": 1, "HMMA": 1, "BAR": 1, "generic": 1,
    }  # fmt: skip


@needs_nvcc
@pytest.mark.skipif(not build.CXX, reason="needs a C++ compiler")
def test_occupancy_is_nvidia_s(tmp_path):
    source, library = Path(__file__).with_name("occupancy_oracle.cpp"), tmp_path / "oracle.so"
    run([*build.CXX, "-shared", "-fPIC", "-isystem", build.cuda_include(), source, "-o", library])
    theirs = ctypes.CDLL(str(library)).blocks_per_sm
    for arch, limits in LIMITS.items():
        sm = int(arch.removeprefix("sm_")), limits.warps, limits.shared
        shared = (0, 1, 8192, 49152, limits.shared - 1024)
        for kernel in itertools.product(range(16, 256, 3), (32, 96, 128, 256, 384, 1024), shared):
            assert blocks_per_sm(arch, *kernel) == theirs(*sm, *kernel), (arch, *kernel)


@needs_nvcc
def test_table_has_the_sources_kernels():
    """And for one architecture, which is compiled in half a minute, all that is known of them."""
    _compare(["sm_80"])


@needs_nvcc
@pytest.mark.slow
def test_table_is_of_these_sources():
    """Of two more: kernels that change do so for all architectures, but for Hopper's own."""
    _compare(["sm_90", "sm_120"])


def test_table_is_written_as_it_is_read(tmp_path):
    path = tmp_path / "kernels.json"
    table.write(COMMITTED._replace(rows=ROWS[::-1]), path)
    assert path.read_text() == table.PATH.read_text()


def test_differences_are_told():
    before, after = [_row(arch="sm_80"), _row(arch="sm_86")], [_row(arch="sm_80", registers=96), _row(arch="sm_100")]
    name = "scale_kernel<__half, 8, true>"
    assert table.differences(before, after) == [
        f"{name} sm_80: registers 0 -> 96", f"{name} sm_86: gone", f"{name} sm_100: new",
    ]  # fmt: skip
