"""Bugs in the stem's max pool and its two backwards."""

from .mutant import Mutant

FILE = "stem_pool.cuh"

POOL = [
    Mutant("pool-tie", FILE, "if (z > value || z != z) {", "if (z >= value || z != z) {",
           "tie rule: the last of equal maxima wins, and 0 does"),
    Mutant("pool-nan", FILE, "if (z > value || z != z) {", "if (z > value) {", "NaN rule: a NaN does not win"),
    Mutant("pool-no-winner", FILE, "constexpr int kNoWinner = 255;", "constexpr int kNoWinner = 0;",
           "no winner is the first place"),
    Mutant("pool-row-bound", FILE, "if (h < 0 || h >= stem.height) {", "if (h < 0 || h > stem.height) {",
           "`>` for `>=`: a row of the next image"),
    Mutant("pool-row-bound-first", FILE, "if (h < 0 || h >= stem.height) {", "if (h < -1 || h >= stem.height) {",
           "a row of the image before"),
    Mutant("pool-place", FILE, "3 * r + s);", "3 * s + r);", "a winner's place with row and column swapped"),
    Mutant("pool-column-bound", FILE, "if (w >= 0 && w < stem.width) {", "if (w >= 0 && w <= stem.width) {",
           "`<=` for `<`: the next row's first pixel"),
    Mutant("pool-rows", FILE, "for (int64_t row = first_row + line; row < end; row += at.step) {",
           "for (int64_t row = first_row + line; row < end; row += 2 * at.step) {",
           "contiguous: every second row is left out"),
    Mutant("pool-chunks-floor", "stem_pool.cu", "s.chunks = ceil_div(s.rows, s.chunk_rows);",
           "s.chunks = s.rows < s.chunk_rows ? 1 : s.rows / s.chunk_rows;", "the last chunk of rows is left out"),
]  # fmt: skip

BACKWARD = [
    Mutant("pool-backward-one-window", FILE, "h % 2 == 1 && h / 2 + 1 < outputs", "false && h / 2 + 1 < outputs",
           "one of the two windows of an odd row or column is dropped"),
    Mutant("pool-backward-window-bound", FILE, "h % 2 == 1 && h / 2 + 1 < outputs",
           "h % 2 == 1 && h / 2 + 1 <= outputs", "`<=` for `<`: a window beyond the last"),
    Mutant("pool-backward-place", FILE, "places[k] == 3 * row.place + column.place",
           "places[k] == 3 * column.place + row.place", "a winner's place with row and column swapped"),
    Mutant("pool-backward-rows", FILE, "h % 2 == 0 ? 1 : 2", "h % 2 == 0 ? 1 : 0",
           "an odd row's place in its first window"),
    Mutant("pool-backward-partials", FILE, "p.partial + at.chunk * (p.x ? 2 : 1) * s.channels + first;",
           "p.partial + at.chunk * 2 * s.channels + first;", "wrong stride between partials without x"),
    Mutant("pool-backward-channels", FILE, "    if (first + i < s.channels) {\n",
           "    if (first + i <= s.channels) {\n",
           "`<=` for `<`: a channel too many in the partials"),
    Mutant("pool-backward-index-alignment", "stem_pool.cu", "{p.grad, p.index, p.x, p.affine, p.means, p.draw}",
           "{p.grad, p.x, p.affine, p.means, p.draw}", "vectors although the places are misaligned"),
]  # fmt: skip

MUTANTS = [*POOL, *BACKWARD]
