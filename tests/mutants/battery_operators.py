"""The checks of the operators on kernels bound by memory: those of tests/backends, as few of each as find every mutant.

Cases for the kernels of another file are one more function in cases().
"""

import functools
import itertools

import torch
from backends.checks import REFERENCE, check_integers, check_oracle, check_what_is_written
from emulator.library import SCHEDULES, Emulated
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import ConvProblem
from tolerance import assert_bit_equal

from .case import Case, named

SEEDS = range(4)
KERNEL_MODES = [mode for mode in MODES if not mode.startswith(("fprop", "dgrad", "wgrad", "backward", "chain"))]
KERNEL_MODES += ["backward_apply", "backward_apply_relu", "backward_apply_out"]
EXACT = [mode for mode in KERNEL_MODES if not mode.startswith(("statistics", "finalize"))]
SUMS = ["statistics", "reduce_two", "pool_reduce"]
# Of several launches, with the kernels around a convolution.
AROUND_CONVOLUTIONS = ["fprop_prologue", "backward_masked", "backward_add", "backward_add_masked",
                       "backward_everything"]  # fmt: skip


def _pointwise(N, C, H, W):
    return ConvProblem(f"{N}x{C}x{H}x{W}", N, C, H, W, C, 1, 1)


VECTORS, SINGLE, TILES = _pointwise(2, 16, 8, 8), _pointwise(3, 5, 7, 9), _pointwise(2, 264, 5, 4)
SEGMENTS = _pointwise(2, 2, 45, 57)  # a plane in three segments, of which a chunk ends within
LARGE = _pointwise(9, 24, 33, 16)  # offsets of more than 16 bits, more chunks than slices
MANY_PLANES = _pointwise(133, 2, 16, 17)  # the same with planes in one piece
MANY_ROWS = _pointwise(1, 31, 130, 140)  # a thread's rows are more than those that are unrolled
ONE_PIXEL = _pointwise(5, 40, 1, 1)


def _integers(kernels, dtypes):
    for mode, problem, layout, dtype in itertools.product(EXACT, (VECTORS, SINGLE, TILES, SEGMENTS), FORMATS, dtypes):
        def check(mode=mode, problem=problem, layout=layout, dtype=dtype):
            case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
            check_integers(case, kernels, DTYPES[dtype], rounds_between=False)

        yield Case(named("integers", mode, problem.id, layout, dtype), check)


def _oracle(kernels, dtypes):
    shapes = {mode: (SINGLE, TILES) for mode in EXACT}
    inexact = ("statistics", "finalize", "finalize_plain")
    shapes |= dict.fromkeys(inexact, (VECTORS, SINGLE, TILES, SEGMENTS, ONE_PIXEL))
    for mode in (*shapes, *SUMS):
        for problem, layout, dtype in itertools.product(shapes[mode], FORMATS, dtypes):
            def check(mode=mode, problem=problem, layout=layout, dtype=dtype):
                check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), kernels)

            yield Case(named("oracle", mode, problem.id, layout, dtype), check)
        shapes[mode] = (LARGE, MANY_PLANES)
    for mode, layout in itertools.product(AROUND_CONVOLUTIONS, FORMATS):
        def check(mode=mode, layout=layout):
            check_oracle(make_case(mode, VECTORS, torch.float32, FORMATS[layout]), kernels)

        if "float32" in dtypes:
            yield Case(named("oracle", mode, layout), check)


def _large(kernels, dtypes):
    """Exact too: small integers, offsets of more than 16 bits."""
    for mode, layout in itertools.product(("apply_residual", "backward_apply", "pool", "pool_apply"), FORMATS):
        def check(mode=mode, layout=layout):
            case = make_case(mode, LARGE, DTYPES[dtypes[0]], FORMATS[layout], integer=True)
            check_integers(case, kernels, DTYPES[dtypes[0]], rounds_between=False)

        yield Case(named("large", mode, layout), check)


def _at_odd_address(tensor):
    """The same values, one element beyond a boundary; whoever stores them is dense."""
    memory = tensor.new_empty(tensor.numel() + 1)
    return memory[1:].as_strided(tensor.size(), tensor.stride()).copy_(tensor)


def _misaligned(kernels, dtypes):
    for mode, layout, dtype in itertools.product((*EXACT, "backward_add_masked"), FORMATS, dtypes):
        def check(mode=mode, layout=layout, dtype=dtype):
            case = make_case(mode, VECTORS, DTYPES[dtype], FORMATS[layout], integer=True)
            tensors = [i for i, a in enumerate(case.arguments) if isinstance(a, torch.Tensor)]
            for which in tensors:
                arguments = list(case.arguments)
                arguments[which] = _at_odd_address(arguments[which])
                moved = case._replace(arguments=tuple(arguments))
                for ours, aligned in zip(moved.run(kernels), case.run(kernels)):
                    # float32's sums of small integers are exact, in whatever order.
                    assert_bit_equal(ours, aligned)

        yield Case(named("misaligned", mode, layout, dtype), check)


def _schedules(kernels, dtypes, emulated):
    """Poisoned memory is written, and with the same bits, whatever the order in which lanes, warps and blocks run."""
    for mode, problem, layout, dtype in itertools.product(SUMS, (VECTORS, SINGLE, SEGMENTS), FORMATS, dtypes):
        def check(mode=mode, problem=problem, layout=layout, dtype=dtype):
            case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout])
            check_what_is_written(case, kernels)
            first = None
            for schedule, seed in itertools.product(SCHEDULES, SEEDS):
                emulated.set_schedule(schedule, seed)
                results = case.run(kernels)
                for a, b in zip(results, first or results):
                    assert_bit_equal(a, b)
                first = first or results

        yield Case(named("schedules", mode, problem.id, layout, dtype), check)


def _with_special_values(tensor, values):
    """Every seventh element, of all channels in turn."""
    flat = tensor.clone(memory_format=torch.contiguous_format).flatten()
    flat[::7] = torch.tensor(values, dtype=tensor.dtype).repeat(flat.numel())[: flat[::7].numel()]
    return torch.empty_like(tensor).copy_(flat.view(tensor.shape))


SPECIAL = ["apply_relu", "apply_residual_affine", "apply_mask", "reduce_relu", "reduce_out", "backward_apply_relu",
           "backward_apply_out", "pool"]  # fmt: skip


def _special_values(kernels, dtypes):
    """NaN, infinities and zeros of both signs: the reference's results, NaN where it has NaN."""
    for mode, layout, dtype in itertools.product(SPECIAL, FORMATS, dtypes):
        def check(mode=mode, layout=layout, dtype=dtype):
            case = make_case(mode, SINGLE if mode == "pool" else VECTORS, DTYPES[dtype], FORMATS[layout], integer=True)
            case = case.mapped(lambda t: _with_special_values(t, [torch.nan, 0.0, -0.0, 1.0]) if t.dim() == 4 else t)
            for ours, theirs in zip(case.run(kernels), case.run(REFERENCE)):
                assert_bit_equal(ours, theirs)

        yield Case(named("special", mode, layout, dtype), check)
    for layout, dtype in itertools.product(FORMATS, dtypes):
        def check_pool(layout=layout, dtype=dtype):
            case = make_case("pool", SINGLE, DTYPES[dtype], FORMATS[layout], integer=True)
            infinite = case.mapped(lambda t: _with_special_values(t, [torch.inf, -torch.inf]) if t.dim() == 4 else t)
            for ours, theirs in zip(infinite.run(kernels), infinite.run(REFERENCE)):
                assert_bit_equal(ours, theirs)

        def check_statistics(layout=layout, dtype=dtype):
            case = make_case("statistics", VECTORS, DTYPES[dtype], FORMATS[layout])
            case = case.mapped(lambda t: _with_special_values(t, [torch.inf]))
            (ours,), (theirs,) = case.run(kernels), case.run(REFERENCE)
            assert_bit_equal(ours, theirs)

        yield Case(named("infinite", "pool", layout, dtype), check_pool)
        yield Case(named("infinite", "statistics", layout, dtype), check_statistics)


def _statistics(kernels, dtypes):
    """Channels with means far from 0 and from each other, and channels that are constant."""
    for problem, layout in itertools.product((VECTORS, SINGLE, LARGE), FORMATS):
        def check_means(problem=problem, layout=layout):
            case = make_case("statistics", problem, torch.float32, FORMATS[layout])
            means = 1000.0 * (1 + torch.arange(problem.C)).view(1, -1, 1, 1)
            case = case.mapped(lambda t: (t + means).contiguous(memory_format=FORMATS[layout]))
            (ours,), (truth,) = case.run(kernels), case.double().run(REFERENCE)
            # oracle: the mean is rounded once. Of M2, whose deviations from the pivot are exact and small, √n·eps
            # remains, n = 4752 at most.
            torch.testing.assert_close(ours[0].double(), truth[0], rtol=2**-23, atol=0)
            torch.testing.assert_close(ours[1].double(), truth[1], rtol=70 * 2**-23, atol=0)

        def check_constant(problem=problem, layout=layout):
            constants = torch.rand(1, problem.C, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.5
            x = constants.expand(problem.N, problem.C, problem.H, problem.W)
            stats = kernels.bn_statistics(x.contiguous(memory_format=FORMATS[layout]))
            # oracle: the pivot, a mean of eight equal numbers, is within an ulp or two of them
            torch.testing.assert_close(stats[0], constants.flatten(), rtol=2**-22, atol=0)
            assert stats[1].min() >= 0, "M2 of constants is negative"
            assert stats[1].max() < problem.N * problem.H * problem.W * 2**-40, "M2 of constants is large"

        if "float32" in dtypes:
            yield Case(named("means", problem.id, layout), check_means)
            yield Case(named("constant", problem.id, layout), check_constant)


def _many_rows(kernels, dtypes):
    def check_statistics():
        check_oracle(make_case("statistics", MANY_ROWS, DTYPES[dtypes[0]], torch.channels_last), kernels)

    def check_apply():
        case = make_case("apply", MANY_ROWS, DTYPES[dtypes[0]], torch.channels_last, integer=True)
        check_integers(case, kernels, DTYPES[dtypes[0]], rounds_between=False)

    yield Case("many_rows-statistics", check_statistics)
    yield Case("many_rows-apply", check_apply)


def _running_statistics(kernels, dtypes):
    """Of several batch norms, in dtypes of their own; with fewer and with more counters than batch norms."""
    acc = torch.float64 if "float64" in dtypes else torch.float32
    channels, counts, momenta = (264, 5), (6, 2), (0.25, 0.75)
    mean_dtypes, var_dtypes = (torch.float32, torch.bfloat16), (torch.float16, torch.float64)

    def check(counters):
        generator = torch.Generator().manual_seed(0)
        stats = [torch.rand(2, C, generator=generator).to(acc) for C in channels]
        means = [torch.rand(C, generator=generator).to(dtype) for C, dtype in zip(channels, mean_dtypes)]
        variances = [torch.rand(C, generator=generator).to(dtype) for C, dtype in zip(channels, var_dtypes)]
        truth = [(1 - m) * mean.double() + m * s[0].double() for m, mean, s in zip(momenta, means, stats)]
        truth += [(1 - m) * var.double() + m * (s[1].double() / (n - 1))
                  for m, var, s, n in zip(momenta, variances, stats, counts)]
        batches = [torch.tensor(number) for number in range(counters)]
        kernels.bn_update_running(stats, counts, momenta, means, variances, batches)
        for ours, theirs in zip((*means, *variances), truth):
            # oracle: results are below 2, and rounded once
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=torch.finfo(ours.dtype).eps)
        assert batches == [number + 1 for number in range(counters)], "a counter is wrong"

    yield from (Case(named("running_statistics", n), functools.partial(check, n)) for n in (0, 1, 3))


def _parameters(kernels, dtypes):
    """Gradients of a scale and a shift in dtypes of their own."""
    acc = torch.float64 if "float64" in dtypes else torch.float32

    def check():
        sums = torch.arange(2 * 5).view(2, 5).to(acc)
        arguments = (sums, 4, torch.ones(5, dtype=torch.bfloat16), torch.ones(5, dtype=torch.float16))
        ours, theirs = (k.bn_backward_finalize(*arguments) for k in (kernels, REFERENCE))
        for a, b in zip(ours, theirs):
            assert_bit_equal(a, b)

    yield Case("parameters", check)


def cases(emulated: Emulated, target) -> list[Case]:
    kernels, dtypes = torch.ops.resnet_fused_emulated, target.dtypes
    schedules = functools.partial(_schedules, emulated=emulated)
    groups = [_special_values, _statistics, _integers, _misaligned, _large, schedules, _oracle,
              _many_rows, _running_statistics, _parameters]  # fmt: skip
    return [case for group in groups for case in group(kernels, dtypes)]
