"""What ptxas made of the Triton convolutions: the committed table, its rules, and a sample compiled again."""

import pytest
from resources import triton_compilation
from resources import triton_convolutions as table

pytest.importorskip("triton")
VERSION, ROWS = table.read()
needs_compiler = pytest.mark.skipif(triton_compilation.why_not() is not None, reason=str(triton_compilation.why_not()))
SAMPLE = [
    table.Key("fprop", "half", (64, 64, 32, 4, 3), "sm_90"),
    table.Key("dgrad", "half", (64, 64, 32, 4, 3), "sm_100"),
    table.Key("wgrad", "tf32", (64, 64, 32, 4, 3), "sm_80"),
    table.Key("fprop_residual", "float32", (64, 64, 16, 4, 2), "sm_120"),
    table.Key("statistics", "half", (), "sm_90"),
]


def test_no_shipped_tiling_breaks_a_rule():
    assert table.broken(ROWS.values()) == []


def test_the_rules_find_what_they_are_for():
    row = ROWS[SAMPLE[0]]
    changes = {"stack": 8, "local": 8, "matrix": "mma.sync", "LDGSTS.128": 0, "shared": 1 << 20}
    for column, value in changes.items():
        assert len(table.broken([row | {column: value}])) == 1, column


def test_every_shipped_tiling_is_in_the_table():
    assert set(table.keys()) == set(ROWS)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("key", SAMPLE, ids=lambda key: f"{key.case}-{key.math}-{key.arch}")
def test_the_table_is_of_these_kernels(key):
    if VERSION != triton_compilation.version():
        pytest.skip(f"the table is Triton {VERSION}'s, here is {triton_compilation.version()}")
    assert table.row_of(key) | {"tiling": key.tiling} == ROWS[key]
