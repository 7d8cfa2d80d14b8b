"""sm_90a's products of a warpgroup under the emulator: right ones are exact, and each mistake is found."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from emulated import KERNELS, NVCC_FLAGS, load, run
from emulator import build
from emulator.library import SCHEDULES
from test_emulator_sanitizers import _call

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

SOURCE = "wgmma_sm90"
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
MISTAKES = ["none", "no_wait", "early_read", "wait_one_too_few", "no_barrier_after_wait", "no_barrier_before",
            "no_proxy_fence", "proxy_fence_too_soon", "no_register_fence", "other_descriptor", "missing_warp",
            "misplaced", "behind_memory"]  # fmt: skip
SEEDS = 5


@pytest.fixture(scope="module")
def library():
    return load(SOURCE)


def _operands(dtype, m, n, k):
    """Small integers: products and sums are exact."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-4, 5, (extent, k), generator=generator).to(dtype) for extent in (m, n))
    return a, b, a.float() @ b.float().t()


LAYOUTS = [(dtype, trans_a, trans_b) for dtype in DTYPES for trans_a in (False, True) for trans_b in (False, True)
           if dtype != torch.float32 or not (trans_a or trans_b)]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("tile_n", [64, 128])
@pytest.mark.parametrize("dtype, trans_a, trans_b", LAYOUTS)
def test_products(library, schedule, copies, tile_n, dtype, trans_a, trans_b):
    """Two blocks by two, each with an odd number of stages; one warpgroup's two products, or two warpgroups."""
    m, n, k = 256, 2 * tile_n, 160
    a, b, expected = _operands(dtype, m, n, k)
    stored = [(x.t() if trans else x).contiguous() for x, trans in ((a, trans_a), (b, trans_b))]
    for seed in range(2):
        library.set_schedule(schedule, seed)
        c = torch.full((m, n), torch.nan)
        run(library, "wgmma", DTYPES.index(dtype), trans_a, trans_b, tile_n, copies, *stored, c, m, n, k)
        assert torch.equal(c, expected)


def test_tf32_is_cut_off(library):
    """The 13 lower bits of float32 operands do not matter, not even for rounding."""
    a, b, expected = _operands(torch.float32, 128, 64, 32)
    noisy = [(x.contiguous().view(torch.int32) + 0x1FFF * (x != 0).int()).view(torch.float32) for x in (a, b)]
    c = torch.empty(128, 64)
    run(library, "wgmma", 2, False, False, 64, True, *noisy, c, 128, 64, 32)
    assert torch.equal(c, expected)


def test_counters(library):
    """What a product reads of shared memory is no request of a warp."""
    a, b, expected = _operands(torch.float16, 128, 64, 64)
    c = torch.empty(128, 64)
    with library.counting() as counts:
        run(library, "wgmma", 0, False, False, 64, True, a, b, c, 128, 64, 64)
        (kernel,) = counts().values()
    assert torch.equal(c, expected)
    assert kernel["bytes_read"] == (128 + 64) * 64 * 2 and kernel["bytes_written"] == 128 * 64 * 4
    pieces = (128 + 64) * 64 * 2 // 16
    assert kernel["shared"] == {"requests": pieces // 32, "wavefronts": pieces // 8, "bank_conflicts": 0}
    assert kernel["barriers"] == 2 * 2


def _mistaken(library, mistake, copies=True, chunks=6):
    a, b, expected = _operands(torch.float16, 128, 64, 32 * chunks)
    c = torch.full((128, 64), 12345.0)
    run(library, "mistaken", MISTAKES.index(mistake), copies, a, b, c, 128, 64, 32 * chunks)
    return c, expected


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_mistake(library, schedule, copies):
    for seed in range(SEEDS):
        library.set_schedule(schedule, seed)
        assert torch.equal(*_mistaken(library, "none", copies))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "mistake, message",
    [
        ("no_wait", r"thread \(\d+,0,0\): wgmma.cuh:\d+ .wgmma_sm90.cu.*lane ends, but the product was not waited"),
        ("no_proxy_fence", r"byte \d+ of shared memory, which thread \d+ wrote, .* without fence.proxy.async"),
        ("proxy_fence_too_soon", r"byte \d+ of shared memory, which thread \d+ wrote, .* without fence.proxy.async"),
        ("no_register_fence", "no wgmma.fence since d's registers may have been written"),
        ("other_descriptor", r"warps \d and \d of a warpgroup give different descriptors"),
        ("missing_warp", r"deadlock: 32 lanes have ended; 96 lanes wait at .*wgmma.wait_group"),
        ("misplaced", "the descriptor's address 256 is not a multiple of 512"),
        ("behind_memory", r"16 bytes at \d+ are outside of the block's \d+ bytes of shared memory"),
    ],
)
def test_reported(library, schedule, mistake, message):
    for seed in range(SEEDS):
        library.set_schedule(schedule, seed)
        with pytest.raises(RuntimeError, match=f"wgmma_kernel.*{message}"):
            _mistaken(library, mistake)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_early_read(library, schedule):
    for seed in range(SEEDS):
        library.set_schedule(schedule, seed)
        assert _mistaken(library, "early_read")[0].isnan().all()


@pytest.mark.parametrize("mistake", ["wait_one_too_few", "no_barrier_after_wait", "no_barrier_before"])
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_wrong_order(library, schedule, copies, mistake):
    """A product's operands are written after it was issued, or are read before they are complete."""
    messages = "was written between its issue and its wait|without fence.proxy.async"
    for seed in range(SEEDS):
        library.set_schedule(schedule, seed)
        with pytest.raises(RuntimeError, match=messages):
            _mistaken(library, mistake, copies)


@pytest.mark.slow
@pytest.mark.parametrize("copies", [0, 1])
def test_no_races(copies):
    arguments = ["mistaken", 0, copies, "12288:", "6144:", "8192:", 128, 64, 192]
    child = _call(SOURCE, "thread", *arguments)
    assert (child.returncode, child.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["wait_one_too_few", "no_barrier_after_wait", "no_barrier_before"])
def test_races(mistake):
    """With ThreadSanitizer products read at once: what is written before their wait is a race."""
    child = _call(SOURCE, "thread", "mistaken", MISTAKES.index(mistake), 0, "12288:", "6144:", "8192:", 128, 64, 192)
    assert child.returncode != 0 and "data race" in child.stderr and "copy_bytes" in child.stderr


@pytest.mark.slow
def test_memory():
    child = _call(SOURCE, "address", "mistaken", 0, 1, "12288:", "6144:", "8192:", 128, 64, 192)
    assert (child.returncode, child.stderr) == (0, "")


def test_architecture():
    assert build.architecture_of(Path("a/conv_fprop_sm90.cu")) == "compute_90a"
    assert build.architecture_of("conv_fprop.cu") == "compute_80"


def test_older_architectures(tmp_path):
    """What includes the header compiles for them, and traps."""
    command = ["nvcc", "-std=c++17", "-arch=sm_80", "-cubin", "-o", tmp_path / "kernels.cubin"]
    subprocess.run([*command, KERNELS / f"{SOURCE}.cu"], check=True)


@pytest.mark.slow
def test_machine_code(tmp_path):
    """ptxas neither serializes the right kernels' products nor adds waits to them; it does both to mistaken ones."""
    nvdisasm = shutil.which("nvdisasm")
    cubin = tmp_path / "kernels.cubin"
    command = ["nvcc", "-std=c++17", *NVCC_FLAGS, "-gencode", "arch=compute_90a,code=sm_90a", "-cubin", "-o", cubin]
    compiled = subprocess.run([*command, KERNELS / f"{SOURCE}.cu"], capture_output=True, text=True, check=True)
    complaints = re.findall(r"\((C75\d+)\).*Li(\d+)EEEvN", compiled.stdout + compiled.stderr)
    assert complaints and all(MISTAKES[int(mistake)] != "none" for _, mistake in complaints), complaints
    triton = pytest.importorskip("triton")
    nvdisasm = nvdisasm or Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    code = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True).stdout
    products = set(re.findall(r"HGMMA\.(64x\d+x\d+\.F32(?:\.BF16|\.TF32)?)", code))
    assert products == {f"64x{n}x{k}" for n in (64, 128) for k in ("16.F32", "16.F32.BF16", "8.F32.TF32")}
