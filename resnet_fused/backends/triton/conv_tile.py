"""Where a program of a convolution works: its tile of the result, and what a step of the reduction reads.

Activations are NHWC, weights [K][R][S][C / groups]. `index` is the integer type of offsets: int64 where int32 is too
short (conv_plan.offsets_are_wide).
"""

import triton
import triton.language as tl

# Arguments of whose values Triton need not compile a kernel each: is 1, is a multiple of 16, is neither.
SIZES = ["N", "H", "W", "P", "Q", "padding_h", "padding_w", "row_tiles", "column_tiles", "split_steps"]

@triton.jit
def tile_of(program, row_tiles, column_tiles, GROUP_ROWS: tl.constexpr):
    """Row and column of tile number `program`.

    GROUP_ROWS rows of tiles at a time, column by column: programs that run at the same time then read the same few rows
    and columns of the operands, which stay in the second-level cache.
    """
    of_group = GROUP_ROWS * column_tiles
    first_row = program // of_group * GROUP_ROWS
    rows = tl.minimum(row_tiles - first_row, GROUP_ROWS)
    within = program % of_group
    return first_row + within % rows, within // rows


@triton.jit
def pixel_of(m, rows, columns):
    """Image, row and column of pixel m of [images][rows][columns]."""
    line = m // columns
    return line // rows, line % rows, m % columns


@triton.jit
def in_image(i, j, di, dj, rows, columns):
    """Whether pixels (i, j), moved by the taps' (di, dj), are inside of an image: [pixels, taps]."""
    i, j = i[:, None] + di[None, :], j[:, None] + dj[None, :]
    return (i >= 0) & (i < rows) & (j >= 0) & (j < columns)


@triton.jit
def cursor_of(step, taps_s, channels, BLOCK: tl.constexpr, FLAT: tl.constexpr, index: tl.constexpr):
    """Where step number `step` through taps x channels begins: tap r, s and channel c.

    A step is BLOCK channels of one tap; FLAT, where channels are fewer than that, BLOCK of taps x channels counted as
    one, by c alone.
    """
    if FLAT:
        return tl.full([], 0, index), tl.full([], 0, index), tl.full([], 0, index) + step * BLOCK
    else:
        chunks = tl.cdiv(channels, BLOCK)
        tap = tl.full([], 0, index) + step // chunks
        return tap // taps_s, tap % taps_s, tl.full([], 0, index) + step % chunks * BLOCK


@triton.jit
def next_cursor(r, s, c, taps_s, channels, BLOCK: tl.constexpr, FLAT: tl.constexpr):
    """Of the step after: counted on, for a division in every step would cost more than the rest of its addresses."""
    c += BLOCK
    if not FLAT:
        s = tl.where(c < channels, s, s + 1)
        c = tl.where(c < channels, c, 0)
        r = tl.where(s < taps_s, r, r + 1)
        s = tl.where(s < taps_s, s, 0)
    return r, s, c


@triton.jit
def lanes_of(r, s, c, taps_s, channels, BLOCK: tl.constexpr, FLAT: tl.constexpr):
    """r, s and c of the step at a cursor, each [BLOCK]. Those with r >= taps_r or c >= channels are not there."""
    lanes = c + tl.arange(0, BLOCK)
    if FLAT:
        tap = lanes // channels
        return tap // taps_s, tap % taps_s, lanes % channels
    else:
        return r + tl.zeros_like(lanes), s + tl.zeros_like(lanes), lanes


@triton.jit
def steps_of(taps, channels, BLOCK: tl.constexpr, FLAT: tl.constexpr):
    """Number of steps through taps x channels."""
    if FLAT:
        return tl.cdiv(taps * channels, BLOCK)
    else:
        return taps * tl.cdiv(channels, BLOCK)
