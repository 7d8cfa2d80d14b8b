"""What ptxas makes of the Triton kernels: the rules, and that the committed table is the sources' own."""

import pytest
from resources import triton_bn, triton_compilation

VERSION, ROWS = triton_bn.read()
OUT_OF_DATE = "tests/resources/triton.json is out of date: run `PYTHONPATH=tests python -m resources.triton_bn`"


def test_rules():
    assert not triton_bn.broken(ROWS)
    assert {row["arch"] for row in ROWS} == set(triton_bn.ARCHITECTURES)


@pytest.mark.parametrize("change, reason", [
    ({"stack": 8}, "stack is 8"), ({"LDL": 2}, "LDL is 2"), ({"warps": 8}, "fewer than 16 warps"),
    ({"LDG.128": 0}, "no load of 16 bytes"), ({"STG.128": 0}, "no store of 16 bytes"), ({"LDG.16": 3}, "3 LDG.16"),
])  # fmt: skip
def test_a_rule_is_broken(change, reason):
    row = next(row for row in ROWS if row["case"] == "apply")
    assert reason in triton_bn.broken([row | change])[0]


@pytest.mark.slow
@pytest.mark.skipif(triton_compilation.why_not() is not None, reason=str(triton_compilation.why_not()))
@pytest.mark.parametrize("dtype, layout, arch", [("float16", "nhwc", "sm_90"), ("float32", "nchw", "sm_80")])
def test_table_is_of_these_sources(dtype, layout, arch):
    """A part of it, in ten seconds each."""
    if triton_compilation.version() != VERSION:
        pytest.skip(f"the table is of triton {VERSION}, and here is {triton_compilation.version()}")
    now = triton_bn.rows_of([(dtype, layout)], [arch])
    # A launch that an earlier configuration has too is in the table as that one's.
    keys = {tuple(row[name] for name in triton_bn.KEY) for row in ROWS}
    now = [row for row in now if tuple(row[name] for name in triton_bn.KEY) in keys]
    before = [row for row in ROWS if (row["dtype"], row["layout"], row["arch"]) == (dtype, layout, arch)]
    assert len(before) >= 10
    lines = triton_bn.differences(before, now)
    assert not lines, "\n".join([OUT_OF_DATE, *lines])
