"""The checks of the convolutions by themselves: those of tests/csrc/test_cuda_conv.py, on fewer and smaller problems.

Each problem is the smallest that has what its comment says; all fit the tile that is compiled.
"""

import itertools

import torch
from conv_checks import check_integers, reference
from csrc.cuda_conv import CudaConvolutions
from emulator.library import SCHEDULES
from operator_cases import make_case
from problems import ConvProblem
from tolerance import assert_bit_equal

from .case import Case, named

CHANNELS_LAST = torch.channels_last
MANY = 1000  # multiprocessors: then the smallest tile leaves none idle
FPROP = ("fprop", "fprop_prologue", "fprop_residual", "fprop_residual_affine")
BACKWARD = ("backward_everything", "backward_bn", "backward_bn_out", "backward_masked", "backward_reduce_linear")
SCHEDULED = ("fprop_prologue", "backward_everything")

STRIDED = ConvProblem("strided", 2, 40, 9, 11, 24, 3, 3, (2, 2), (1, 1))  # odd extents, the reductions' ends in a chunk
VECTOR = (
    STRIDED,
    ConvProblem("dilated", 2, 32, 12, 9, 16, 3, 2, (1, 1), (3, 2), (3, 2)),  # two directions alike in nothing
    ConvProblem("dilated_strided", 1, 16, 13, 12, 24, 3, 3, (2, 3), (2, 1), (2, 3)),  # classes that several taps reach
    ConvProblem("strides", 2, 16, 8, 11, 24, 3, 3, (3, 1), (1, 1)),  # taps of different residues
    ConvProblem("coprime", 1, 16, 13, 12, 24, 3, 3, (3, 2), (2, 3), (2, 3)),  # the first tap several strides away
    ConvProblem("groups", 2, 48, 5, 6, 96, 3, 3, (1, 1), (1, 1), (1, 1), 3),
    ConvProblem("unread", 2, 16, 9, 10, 24, 1, 1, (3, 2)),  # pixels that a filter of one tap steps over
    ConvProblem("few_channels", 1, 8, 14, 15, 8, 5, 7, (2, 1), (2, 3)),  # a chunk has several taps
)
TILES = ConvProblem("tiles", 3, 8, 53, 53, 16, 1, 1)  # more tiles than a merge has segments; images end within tiles
FAR = ConvProblem("far", 5, 64, 12, 12, 64, 1, 1)  # offsets of more than 16 bits
FAR_STRIDED = ConvProblem("far_strided", 5, 64, 12, 12, 8, 1, 1, (2, 2))  # the same, of pixels with others between
RAGGED = ConvProblem("ragged_filters", 2, 16, 5, 7, 68, 1, 1)  # pieces of x, but none of y, in a whole tile too
DEEP = ConvProblem("deep", 1, 72, 4, 8, 64, 1, 1)  # more chunks than stages; pixels divided by powers of 2
SPLITS = ConvProblem("splits", 1, 16, 29, 29, 24, 1, 1)  # pixels enough for several blocks
ODD_SPLITS = ConvProblem("odd_splits", 1, 5, 23, 23, 7, 1, 1)  # the same; the sums end within a block of their merge
SCALAR = (
    ConvProblem("odd_channels", 3, 5, 6, 7, 7, 3, 3, (1, 1), (1, 1)),
    ConvProblem("odd_groups", 2, 12, 6, 5, 20, 3, 2, (2, 1), (1, 0), (1, 2), 4),
    ConvProblem("one_channel", 2, 1, 6, 6, 3, 3, 3, (1, 1), (1, 1)),
)
LARGE = (
    ConvProblem("large", 1, 72, 9, 8, 136, 3, 3, (1, 1), (1, 1)),
    ConvProblem("large_strided", 2, 136, 9, 8, 72, 3, 3, (2, 2), (1, 1)),
)
WGMMA = (
    ConvProblem("wgmma", 1, 72, 9, 8, 136, 3, 3, (1, 1), (1, 1)),  # 128x128
    ConvProblem("wgmma_strided", 2, 72, 9, 8, 40, 3, 3, (2, 2), (1, 1)),  # 128x64, wgrad 64x128
    ConvProblem("wgmma_narrow", 3, 40, 9, 8, 72, 1, 1),  # dgrad and wgrad 128x64
)
LONG_CHUNKS = (
    ConvProblem("chunks", 1, 128, 7, 9, 192, 3, 3, (1, 1), (1, 1)),
    ConvProblem("chunks_strided", 3, 64, 9, 11, 64, 3, 3, (2, 2), (1, 1)),
    ConvProblem("chunks_groups", 1, 256, 5, 6, 256, 3, 2, (1, 1), (1, 0), (1, 1), 2),
    ConvProblem("chunks_dgrad", 1, 72, 7, 9, 128, 2, 3, (1, 1), (1, 1)),  # of ragged channels
    ConvProblem("chunks_filters", 1, 64, 5, 6, 136, 1, 1),  # that end among a thread's rows
)
LONGER_CHUNKS = [ConvProblem(f"longer_{C}", 1, C, 8, 16, 128, 1, 1) for C in (128, 256)]
LONG_CHUNKS_MODES = ("fprop_prologue", "fprop_residual_affine", "backward_reduce_linear")
TRANSPOSED = ConvProblem("transposed", 2, 24, 7, 6, 16, 3, 3, (1, 1), (1, 1))


def _dtype(target):
    return torch.bfloat16 if target.math == "BFloat16" else torch.float32


class _Checks:
    """Of one target's kernels."""

    def __init__(self, target, emulated):
        self.target, self.emulated, self.dtype = target, emulated, _dtype(target)

    def convolutions(self, multiprocessors=None, **options):
        large = self.target.tile == "128x128" or self.target.wgmma
        multiprocessors = multiprocessors or (1 if large else MANY)
        return CudaConvolutions(
            self.emulated, self.target.math == "Tf32", multiprocessors, wgmma=self.target.wgmma, **options
        )

    def case(self, mode, problem, integer=True):
        return make_case(mode, problem, self.dtype, CHANNELS_LAST, integer)

    def integers(self, mode, problem, **options):
        """A case of small integers, whose results are exact."""
        def check():
            check_integers(self.convolutions(**options), self.case(mode, problem), self.dtype)

        return Case(named("integers", mode, problem.id, *options), check)

    def stored(self, problem):
        """Statistics and sums are of what is stored: to a few roundings, whatever those of y and dx are."""
        def check():
            y, stats = self.case("fprop_prologue", problem, integer=False).run(self.convolutions())
            truth = reference.bn_statistics(y.double())
            scale = truth.abs().amax(1, keepdim=True)
            # oracle: float32's sums of a tile; the mean may cancel, so errors are relative to the largest channel's.
            assert ((stats - truth).abs() <= 16 * 2**-24 * scale).all(), "statistics are not those of y"

        return Case(named("stored", problem.id), check)

    def schedule(self, mode, problem, schedule, seed):
        def check():
            self.emulated.set_schedule(schedule, seed)
            check_integers(self.convolutions(), self.case(mode, problem), self.dtype)

        return Case(named("schedule", mode, schedule, seed), check)

    def nan(self):
        """NaN passes ReLU and its gradient, where it is not masked."""
        problem = VECTOR[-1] if self.target.vector else SCALAR[0]

        def check():
            convolutions = self.convolutions()
            convolutions.all_written = False
            for mode, tensor in (("fprop_prologue", 0), ("backward_everything", 0), ("backward_everything", 1),
                                 ("backward_bn", 2)):  # fmt: skip
                case = self.case(mode, problem)
                arguments = list(case.arguments)
                arguments[tensor] = arguments[tensor].clone()
                arguments[tensor][0, ::2, 2:4, 3] = torch.nan
                case = case._replace(arguments=tuple(arguments))
                # In float64: of 16 bits, torch's own convolutions on some CPUs let a NaN pass to neighbours.
                for ours, theirs in zip(case.run(convolutions), case.double().run(reference)):
                    assert ours.isnan().equal(theirs.isnan()), f"{mode}: NaN is not where it should be"

        return Case("nan", check)

    def large_mean(self):
        """E[x²] − E[x]² would lose the variance, and so do tiles' means that are rounded and left so."""
        def check():
            generator = torch.Generator().manual_seed(0)
            x = (1e4 + 0.1 * torch.randn(3, 8, 9, 11, generator=generator)).contiguous(memory_format=CHANNELS_LAST)
            arguments = (x, torch.eye(8).view(8, 8, 1, 1), (1, 1), (0, 0), (1, 1), 1, None, False, True)
            _, (mean, m2) = self.convolutions().conv_fprop(*arguments, None, None, None, False)
            truth = x.double().var((0, 2, 3), correction=0) * (3 * 9 * 11)
            # The deviations from a tile's mean are exact; √n·eps of their sum of squares remains, n = 297.
            torch.testing.assert_close(m2.double(), truth, rtol=18 * 1.2e-7, atol=0)
            torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2**-23, atol=0)

        return Case("large_mean", check)

    def infinite(self):
        """A sum to which infinity adds is infinite, wherever in a tile it is."""
        def check():
            for pixel in (0, 1):
                x = torch.zeros(1, 8, 9, 11, dtype=self.dtype).contiguous(memory_format=CHANNELS_LAST)
                x[0, 0, 0, pixel] = torch.inf
                weight = torch.ones(8, 8, 1, 1, dtype=self.dtype)
                convolutions = self.convolutions()
                convolutions.all_written = False  # NaN is what some sums of squares should be
                arguments = (x, weight, (1, 1), (0, 0), (1, 1), 1, None, False, True, None, None, None, False)
                for ours, theirs in zip(convolutions.conv_fprop(*arguments), reference.conv_fprop(*arguments)):
                    assert_bit_equal(ours, theirs)

        return Case("infinite", check)

    def rounded_operands(self):
        """tf32's 11 bits, to nearest with ties away from zero: times 1, they are the result."""
        def check():
            x = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(0))
            x = x.contiguous(memory_format=CHANNELS_LAST)
            weight = torch.eye(8).view(8, 8, 1, 1)
            arguments = (x, weight, (1, 1), (0, 0), (1, 1), 1, None, False, False, None, None, None, False)
            y, _ = self.convolutions().conv_fprop(*arguments)
            assert_bit_equal(y, ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32))

        return Case("rounded_operands", check)

    def bank_conflicts(self, mode, short, long):
        """The main loop has none: a longer one has as many, those of the epilogue."""
        def check():
            conflicts = []
            for problem in (short, long):
                with self.emulated.counting() as counts:
                    self.case(mode, problem).run(self.convolutions())
                    (kernel,) = (c for c in counts().values() if f"conv_{mode[:5]}_kernel" in c["name"])
                conflicts.append(kernel["shared"]["bank_conflicts"])
            assert conflicts[0] == conflicts[1], f"bank conflicts: {conflicts}"

        return Case(named("bank_conflicts", mode), check)

    def alignment(self, mode, problem, shifted):
        """One of the inputs is misaligned: the kernel is another one, and not compiled, or the results are right."""
        def check():
            convolutions = self.convolutions(shifted=shifted)
            try:
                check_integers(convolutions, self.case(mode, problem), self.dtype)
            except AssertionError as error:
                if "not compiled" not in str(error):
                    raise
            finally:
                convolutions.release()

        return Case(named("alignment", mode, shifted), check)


def _vector(checks):
    short, wide, long = (ConvProblem(f"{C}x{H}", 1, C, H, 16, 64, 1, 1) for C, H in ((64, 4), (64, 8), (128, 4)))
    yield from (checks.alignment("fprop_residual_affine", STRIDED, i) for i in range(5))
    yield from (checks.alignment("backward_everything", STRIDED, i) for i in range(11))
    for problem in VECTOR:
        yield from (checks.integers(mode, problem) for mode in (*FPROP, *BACKWARD))
    yield from (checks.integers(mode, RAGGED) for mode in FPROP)
    yield checks.integers("fprop_residual", FAR)
    yield checks.integers("backward_everything", FAR_STRIDED)
    for problem in (TILES, FAR, DEEP):
        yield from (checks.integers(mode, problem) for mode in SCHEDULED)
    yield checks.integers("wgrad", SPLITS, multiprocessors=100)
    yield checks.nan()
    yield checks.infinite()
    yield checks.stored(STRIDED)
    for mode, schedule, seed in itertools.product(SCHEDULED, SCHEDULES, range(3)):
        yield checks.schedule(mode, DEEP, schedule, seed)
    yield checks.bank_conflicts("fprop", short, long)
    yield checks.bank_conflicts("fprop_prologue", short, long)
    yield checks.bank_conflicts("wgrad", short, wide)
    if checks.dtype == torch.float32 and checks.target.math == "Ffma":
        yield checks.large_mean()
    if checks.target.math == "Tf32":
        yield checks.rounded_operands()


def _scalar(checks):
    for problem in SCALAR:
        yield from (checks.integers(mode, problem) for mode in (*FPROP, *BACKWARD))
    yield checks.integers("fprop_residual", TRANSPOSED, offset=1)
    yield checks.integers("backward_everything", TRANSPOSED, offset=1)
    yield checks.integers("wgrad", ODD_SPLITS, multiprocessors=100)
    yield checks.nan()


def _large(checks):
    for problem in LARGE:
        yield from (checks.integers(mode, problem) for mode in SCHEDULED)
    for schedule in SCHEDULES:
        yield from (checks.schedule(mode, LARGE[0], schedule, 1) for mode in SCHEDULED)


def _wgmma(checks):
    for problem, mode in itertools.product(WGMMA, ("fprop_residual_affine", *SCHEDULED)):
        yield checks.integers(mode, problem)
    yield from (checks.integers(mode, WGMMA[0], shared_bytes=163 << 10) for mode in SCHEDULED)  # four stages
    yield from (checks.alignment("backward_everything", WGMMA[1], i) for i in range(11))
    for mode, schedule in itertools.product(SCHEDULED, SCHEDULES):
        yield checks.schedule(mode, WGMMA[0], schedule, 1)
    for problem, mode in itertools.product(LONG_CHUNKS, LONG_CHUNKS_MODES):
        yield checks.integers(mode, problem)
    yield checks.integers("backward_everything", LONGER_CHUNKS[0])  # of several tensors: its chunks are not long
    for mode, schedule in itertools.product(LONG_CHUNKS_MODES, SCHEDULES):
        yield checks.schedule(mode, LONG_CHUNKS[0], schedule, 1)
    yield checks.bank_conflicts("fprop_prologue", *LONGER_CHUNKS)


def cases(emulated, target) -> list[Case]:
    kinds = ((target.wgmma, _wgmma), (target.tile == "128x128", _large), (target.vector, _vector), (True, _scalar))
    of_target = next(function for holds, function in kinds if holds)
    return list(of_target(_Checks(target, emulated)))
