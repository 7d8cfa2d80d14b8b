"""The emulator finds what is wrong with wrong kernels, and says where. Each mistake's right version runs too."""

import ctypes
import re

import pytest
import torch
from emulated import guarded, load, run
from emulator import build
from emulator.library import SCHEDULES

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def library():
    return load("wrong")


@pytest.fixture(params=SCHEDULES)
def wrong(library, request):
    library.set_schedule(request.param, 1)
    return library


@pytest.mark.parametrize("right", [True, False])
def test_missing_barrier(wrong, right):
    x, out = torch.arange(128, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
    run(wrong, "rotate", right, x, out)
    assert torch.equal(out, x.roll(-1)) == right


@pytest.mark.parametrize("right", [True, False])
def test_sum_without_atomics(library, right):
    """The random schedule interrupts lanes between reading a number and writing it back."""
    x, sums = torch.arange(256, dtype=torch.int32), torch.zeros(10, dtype=torch.int32)
    for seed in range(10):
        library.set_schedule("random", seed)
        run(library, "sum", right, x, sums[seed:])
    wrong = int((sums != x.sum()).sum())
    assert wrong == 0 if right else wrong >= 5


@pytest.mark.parametrize("right", [True, False])
def test_one_group_of_copies_too_few(wrong, right):
    x, out = torch.arange(384, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
    run(wrong, "copy", right, x, out)
    assert torch.equal(out, x[128:256].roll(-4)) == right


def _fails(message):
    return pytest.raises(RuntimeError, match=message)


def test_divergent_barrier(wrong):
    with _fails(r"divergent_kernel.*block \(0,0,0\): thread \(\d+,0,0\): wrong.cu:\d+: .*divergent barrier"):
        run(wrong, "divergent", torch.zeros(32, dtype=torch.int32))


def test_lanes_that_do_not_come(wrong):
    waiting = r"16 lanes wait at .*shfl.sync.*; 16 lanes wait at wrong.cu:\d+: bar.sync 0"
    with _fails(f"missing_lanes_kernel.*deadlock: {waiting}"):
        run(wrong, "missing_lanes", torch.zeros(32, dtype=torch.int32))


def test_endless_loop(library):
    with _fails("the loop does not end"):
        run(library, "endless", torch.zeros(1, dtype=torch.int32))


@pytest.mark.parametrize("index", [-1, 0, 2, 3])
def test_global_memory_out_of_bounds(wrong, index):
    out = torch.zeros(1)
    with guarded(wrong, 3, fill=5.0) as x:
        for launcher, arguments in [("read", (x, out, index)), ("write", (x, index))]:
            if 0 <= index < 3:
                run(wrong, launcher, *arguments)
                continue
            side = "4 bytes before the beginning" if index < 0 else "0 bytes past the end"
            with _fails(rf"{launcher}_kernel.*wrong.cu:\d+: .*: 4 bytes at 0x\w+ {side} of an allocation of 12 bytes"):
                run(wrong, launcher, *arguments)
        assert (x == 1).sum() == (0 <= index < 3)
    run(wrong, "read", x, out, 0)


def test_null_pointer(wrong):
    with _fails("are not memory"):
        run(wrong, "write", None, 3)


def test_no_memory(wrong):
    """Far from anything that is guarded, where the access itself fails."""
    with _fails(r"write_kernel.*thread \(0,0,0\): no memory is at 0x\w+ \(for the line: addr2line -ie .*test_wrong-"):
        run(wrong, "write", torch.zeros(1), 2**30)
    test_missing_barrier(wrong, True)


@pytest.mark.parametrize("offset", [0, 1])
def test_misaligned_vector(wrong, offset):
    x, out = torch.randn(8), torch.zeros(4)
    if offset == 0:
        run(wrong, "read_vector", x, out)
        return
    with _fails(r"read_vector_kernel.*ld.global.v4.u32.*16 bytes at \w+ are misaligned"):
        run(wrong, "read_vector", x[offset:], out)


@pytest.mark.parametrize("index, bytes", [(0, 4), (99, 400), (100, 400), (-1, 400), (0, 0)])
def test_shared_memory_out_of_bounds(wrong, index, bytes):
    out = torch.zeros(1)
    if 0 <= index * 4 < bytes:
        run(wrong, "shared", out, index, bytes, 0)
        return
    with _fails(rf"shared_kernel.*st.shared.*are outside of the block's {bytes} bytes of shared memory"):
        run(wrong, "shared", out, index, bytes, 0)


@pytest.mark.parametrize(
    "bytes, allowed, message",
    [
        (49152, 0, None),
        (49156, 0, "49156 bytes of shared memory are more than the 49152"),
        (49156, 49152, "which is 49152 here"),
        (166912, 166912, None),
        (166916, 166912, "166916 bytes of shared memory"),
        (49156, 166916, "which is 0 here"),
    ],
)
def test_how_much_shared_memory(library, bytes, allowed, message):
    if message is None:
        run(library, "shared", torch.zeros(1), 0, bytes, allowed)
        return
    run(library, "shared", torch.zeros(1), 0, 4, 0)
    with _fails(f"^1: .*{message}"):
        run(library, "shared", torch.zeros(1), 0, bytes, allowed)


@pytest.mark.parametrize(
    "threads, grid_y, message",
    [
        (64, 1, None),
        (65, 1, "65 threads, but __launch_bounds__ is 64"),
        (1025, 1, "1025 threads"),
        (0, 1, "0 threads"),
        (1, 65535, None),
        (1, 65536, "1 x 65536 x 1"),
        (1, 0, "1 x 0 x 1"),
    ],
)
def test_shape_of_a_launch(library, threads, grid_y, message):
    out = torch.zeros(64, dtype=torch.int32)
    if message is None:
        run(library, "bounded", out, threads, grid_y)
        assert out.sum() == threads
        return
    with _fails(f"^1: .*bounded_kernel.*{message}"):
        run(library, "bounded", out, threads, grid_y)


def test_the_runtime_tells_the_message(library):
    with _fails("divergent barrier"):
        run(library, "divergent", torch.zeros(32, dtype=torch.int32))
    library.functions.last_error_string.restype = ctypes.c_char_p
    assert re.match(rb"cudaErrorLaunchFailure: .*divergent barrier", library.functions.last_error_string())


def test_a_failure_leaves_the_next_launch_alone(wrong):
    with _fails("divergent"):
        run(wrong, "divergent", torch.zeros(32, dtype=torch.int32))
    test_missing_barrier(wrong, True)
