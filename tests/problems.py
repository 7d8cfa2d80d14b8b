"""The problems that tests and benchmarks share: ResNet's layers cut small, and the shapes that break kernels."""

from typing import NamedTuple


class ConvProblem(NamedTuple):
    id: str
    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def output(self) -> tuple[int, int]:
        """P, Q."""
        sizes = zip((self.H, self.W), (self.R, self.S), self.stride, self.padding, self.dilation)
        return tuple((size + 2 * p - d * (kernel - 1) - 1) // s + 1 for size, kernel, s, p, d in sizes)


def _conv(id, N, C, size, K, kernel, stride=1, padding=None, dilation=1, groups=1) -> ConvProblem:
    H, W = size if isinstance(size, tuple) else (size, size)
    R, S = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (dilation * (R // 2), dilation * (S // 2)) if padding is None else padding
    stride = stride if isinstance(stride, tuple) else (stride, stride)
    return ConvProblem(id, N, C, H, W, K, R, S, stride, padding, (dilation, dilation), groups)


RESNET = (
    _conv("stem", 2, 3, 16, 8, 7, stride=2),
    _conv("3x3", 2, 16, 8, 16, 3),
    _conv("3x3_s2", 2, 16, 8, 32, 3, stride=2),
    _conv("1x1_reduce", 2, 32, 7, 8, 1),
    _conv("1x1_expand", 2, 8, 7, 32, 1),
    _conv("1x1_s2", 2, 16, 8, 32, 1, stride=2),
)

ODD = (
    _conv("odd_channels", 3, 5, 6, 7, 3),
    _conv("one_channel", 2, 1, 6, 1, 3),
    _conv("dilated", 2, 6, 9, 5, 3, dilation=2),
    _conv("groups", 2, 12, 6, 8, 3, groups=4),
    _conv("depthwise", 2, 9, 6, 9, 3, stride=2, groups=9),
    _conv("batch_1", 1, 17, 7, 19, 3),
    _conv("ragged", 3, 11, (5, 13), 21, 3, stride=2),
    _conv("non_square", 2, 6, (7, 10), 9, (1, 5), stride=(1, 2)),
    _conv("unpadded", 2, 4, (9, 6), 4, (3, 2), stride=(2, 1), padding=(0, 1)),
    _conv("one_pixel", 5, 9, 3, 10, 3, padding=(0, 0)),
    _conv("pixels_unread", 2, 8, 7, 8, 2, stride=3, padding=(0, 0)),
    _conv("wide", 1, 70, 3, 66, 1),
)

# 3x3 filters of stride 1, with channels and 4x4 tiles enough for Winograd's algorithm.
WINOGRAD = (
    _conv("wino_whole", 2, 16, 12, 16, 3),
    _conv("wino_ragged", 3, 33, (13, 18), 40, 3),
    _conv("wino_batch_1", 1, 17, (15, 16), 35, 3),
    _conv("wino_unpadded", 2, 20, (14, 17), 16, 3, padding=(0, 0)),
    _conv("wino_padding_2", 2, 16, (11, 13), 24, 3, padding=(2, 2)),
    _conv("wino_wide", 1, 16, (9, 61), 17, 3),  # more than one chunk of tile columns
    _conv("wino_blocks", 6, 48, 29, 33, 3),  # several blocks
    _conv("wino_shared", 4, 160, 10, 144, 3),  # sums too large for each worker to have its own
    _conv("wino_few_tiles", 1, 336, 15, 17, 3),  # one block, shared by all workers even if that is one
    _conv("wino_deep", 1, 1040, (13, 14), 17, 3),  # more channels than are multiplied at a time
    _conv("wino_far_padding", 2, 16, (9, 6), 17, 3, padding=(4, 5)),
)

# What the implicit matrix product has to address.
DIRECT = (
    _conv("s2_odd", 3, 19, (9, 11), 35, 3, stride=2),
    _conv("s2_dilated", 2, 18, (12, 13), 17, 3, stride=2, dilation=2),
    _conv("far_padding", 2, 17, 5, 16, 3, padding=(4, 5)),
    _conv("5x5_s3", 2, 16, (13, 17), 18, 5, stride=3),
    _conv("7x1", 2, 33, (11, 4), 16, (7, 1)),
    _conv("1x7", 2, 16, (4, 11), 33, (1, 7)),
    _conv("narrow", 5, 20, (9, 3), 18, 3, stride=(2, 1)),  # two lines of pixels to a tile
    _conv("deep_narrow", 5, 400, (9, 3), 40, 3, stride=(2, 1)),  # the same, summed in chunks
    _conv("one_column", 3, 16, (15, 1), 16, 3),
    _conv("folded_15", 2, 15, (9, 10), 20, 3),
    _conv("folded_5x5_s2", 2, 4, (14, 15), 36, 5, stride=2),
    _conv("groups_wide", 2, 66, 7, 70, 3, groups=2),
    _conv("depthwise_twice", 2, 5, 9, 10, 3, groups=5),
    _conv("1x1_s3", 2, 34, (10, 11), 36, 1, stride=3),
    _conv("many_strips", 7, 20, (40, 24), 33, 3, stride=(1, 2)),
)

def _depthwise(id, N, C, size, kernel, **geometry) -> ConvProblem:
    return _conv(id, N, C, size, C, kernel, groups=C, **geometry)


# One channel to a group. "depthwise" above is one, too.
DEPTHWISE = (
    _depthwise("dw_5", 2, 5, (9, 10), 3),
    _depthwise("dw_19_s2", 3, 19, (11, 13), 3, stride=2),
    _depthwise("dw_35_dilated", 1, 35, (12, 9), 3, dilation=2),
    _depthwise("dw_5x5", 2, 16, (13, 17), 5),
    _depthwise("dw_7x7", 1, 24, (10, 15), 7),  # more taps in a row than a tile of registers has on some
    _depthwise("dw_unpadded", 2, 33, (8, 7), 3, padding=(0, 0)),
    # So many images that the largest of the errors is a usual one, in what is rounded to 16 bits twice.
    _depthwise("dw_one_pixel", 24, 20, 3, 3, padding=(0, 0)),
    _depthwise("dw_far_padding", 2, 17, (5, 4), 3, padding=(4, 5)),
    _depthwise("dw_s3_dilated", 2, 18, (14, 11), (3, 2), stride=(3, 2), dilation=2),
    _depthwise("dw_pixels_unread", 2, 6, 7, 2, stride=3, padding=(0, 0)),
    _depthwise("dw_1x1_s2", 2, 34, (6, 7), 1, stride=2),
    _depthwise("dw_column", 2, 21, (9, 1), (5, 1)),
    _depthwise("dw_splits", 1, 400, (15, 14), 3),  # channels, and rows, are shared out
    _depthwise("dw_wide", 1, 16, (37, 150), 3, stride=(1, 2)),  # more pixels than are summed at a time
)

# Filters of one pixel and whole blocks of 16 channels: without a prologue the CPU engine reads them where they lie.
POINTWISE = (
    _conv("1x1_strips", 3, 48, (40, 24), 33, 1),
    _conv("1x1_groups", 2, 64, (9, 10), 40, 1, groups=2),
    _conv("1x1_splits", 1, 256, 5, 130, 1),  # the filters are shared out
)

# Lines a little longer than a tile of the CPU's registers (of 6 pixels, or AVX-512's 14), whose rest is taken downwards:
# in chunks of channels, in the grids of a strided gradient, and with several threads of several images or strips.
NARROW = (
    _conv("lines_of_7", 5, 20, 7, 33, 3),
    _conv("lines_of_14", 2, 20, (40, 14), 33, 3),
    _conv("lines_of_8_deep", 2, 300, (10, 8), 17, 3),
    _conv("lines_of_7_and_8", 3, 18, (16, 15), 34, 3, stride=2),
    _conv("lines_of_15", 2, 17, (9, 15), 18, 5),
)

CONVS = (*RESNET, *ODD, *WINOGRAD, *DIRECT)
CPU_CONVS = (*CONVS, *DEPTHWISE, *POINTWISE, *NARROW)  # the other backends have no kernels for these alone


class ConvSize(NamedTuple):
    K: int
    kernel: int
    stride: int = 1


class ChainProblem(NamedTuple):
    id: str
    N: int
    C: int
    H: int
    W: int
    units: tuple[ConvSize, ...]
    shortcut: str  # "none", "identity", "projection" or "given"

    @property
    def stride(self) -> int:
        product = 1
        for unit in self.units:
            product *= unit.stride
        return product


CHAINS = (
    ChainProblem("single", 3, 2, 4, 5, (ConvSize(3, 3),), "none"),
    ChainProblem("single_stride", 3, 3, 5, 5, (ConvSize(2, 3, 2),), "none"),
    ChainProblem("basic", 2, 3, 4, 4, (ConvSize(3, 3), ConvSize(3, 3)), "identity"),
    ChainProblem("basic_projection", 2, 2, 4, 5, (ConvSize(3, 3, 2), ConvSize(3, 3)), "projection"),
    ChainProblem("basic_given", 2, 2, 4, 5, (ConvSize(3, 3, 2), ConvSize(3, 3)), "given"),
    ChainProblem("bottleneck", 2, 4, 3, 4, (ConvSize(2, 1), ConvSize(2, 3), ConvSize(4, 1)), "identity"),
    ChainProblem(
        "bottleneck_projection", 2, 2, 5, 4, (ConvSize(2, 1), ConvSize(2, 3, 2), ConvSize(4, 1)), "projection"
    ),
)


class BlockProblem(NamedTuple):
    """A module under test: class and constructor arguments, and its input."""

    id: str
    kind: str  # "conv_bn_act", "basic", "bottleneck", "textbook_basic" or "textbook_bottleneck"
    arguments: tuple
    size: tuple[int, int, int, int]


BLOCKS = (
    BlockProblem("conv_bn_act", "conv_bn_act", (6, 8, 3), (4, 6, 6, 6)),
    BlockProblem("conv_bn_act_1x1", "conv_bn_act", (6, 10, 1, 2), (4, 6, 7, 6)),
    BlockProblem("basic", "basic", (8, 8), (3, 8, 6, 6)),
    BlockProblem("basic_stride", "textbook_basic", (6, 8, 2), (3, 6, 8, 7)),
    BlockProblem("bottleneck", "bottleneck", (16, 4), (3, 16, 6, 5)),
    BlockProblem("bottleneck_stride", "textbook_bottleneck", (8, 4, 2), (3, 8, 7, 7)),
)
