"""Who is right: errors against float64, judged beside eager's own. Pure functions, no torch.

In float32 a ReLU whose argument is within rounding of zero can flip, and then one gradient element moves by far more
than rounding; two correct eager layouts differ like that too. So outputs are bounded by the larger of eager's two
errors, gradients by the median over parameters, and a single parameter only by a gross bound that a missing or
misrouted gradient cannot meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping

from .statistics import percentile

FACTOR = 2.0  # our error may be at most this multiple of eager's
FLOAT32_EPSILON = 2.0**-23
# A flipped ReLU moves eager's ResNet-50 gradients by about 1e-2 of their largest element; a missing one by 1.
GROSS_FRACTION = 0.1


@dataclass(frozen=True)
class Errors:
    """Largest absolute errors against float64: of the outputs and, per parameter, of its gradient.

    ``None`` stands for a result that is not finite. Where several steps were checked, ``gradients`` are the errors of
    each one's luckiest step and ``worst`` those of its unluckiest.
    """

    output: float | None
    gradients: Mapping[str, float | None]
    worst: Mapping[str, float | None] | None = None

    @property
    def gross(self) -> Mapping[str, float | None]:
        return self.gradients if self.worst is None else self.worst


@dataclass(frozen=True)
class Scales:
    """Largest absolute values of the float64 outputs and of each parameter's float64 gradient."""

    output: float
    gradients: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """``right``, or the ``reasons`` why not, one sentence each; and the numbers the decision rests on."""

    right: bool
    reasons: tuple[str, ...]
    output_bound: float
    gradient_ratio: float | None
    gradient_worst: float | None


def output_bound(eager: Mapping[str, Errors], scale: float, reduction: int) -> float:
    """FACTOR times the larger of eager's errors, plus an absolute term.

    The absolute term is the rounding error that a sum of ``reduction`` float32 terms reaches in the root mean square,
    sqrt(reduction) * eps * scale: on few outputs eager's own error can be smaller than that by luck.
    """
    largest = max((errors.output for errors in eager.values() if errors.output is not None), default=math.inf)
    return FACTOR * largest + math.sqrt(reduction) * FLOAT32_EPSILON * scale


def gradient_ratio(ours: Errors, eager: Errors, scales: Scales) -> float | None:
    """Median over parameters of our error / eager's error; ``None`` without gradients.

    Eager's error counts as at least half an ulp of the largest element: less than that is luck.
    """
    ratios = []
    for name, scale in scales.gradients.items():
        mine, theirs = ours.gradients.get(name), eager.gradients.get(name)
        floor = max(theirs or 0.0, FLOAT32_EPSILON / 2 * scale)
        if mine is None or (floor == 0 and mine > 0):
            ratios.append(math.inf)
        else:
            ratios.append(mine / floor if floor else 1.0)
    return percentile(ratios, 0.5) if ratios else None


def relative_gradient_error(errors: Errors, scales: Scales) -> float | None:
    """Largest over parameters of error / largest element of that gradient; ``None`` without gradients."""
    relative = [
        math.inf if errors.gradients.get(name) is None else errors.gradients[name] / scale
        for name, scale in scales.gradients.items()
        if scale > 0
    ]
    return max(relative, default=None)


def judge(ours: Errors, eager: Mapping[str, Errors], scales: Scales, reduction: int,
          baseline: str = "channels_last") -> Verdict:
    """Judge one contender. ``eager`` maps each layout to eager float32's errors on the same weights and images."""
    reasons = []
    bound = output_bound(eager, scales.output, reduction)
    if ours.output is None:
        reasons.append("outputs are not finite")
    elif not ours.output <= bound:
        reasons.append(f"output error {ours.output:.2e} exceeds the bound {bound:.2e}")

    ratio = gradient_ratio(ours, eager[baseline], scales)
    if ratio is not None and not ratio <= FACTOR:
        reasons.append(f"gradient errors are {ratio:.3g} times eager's in the median over parameters, bound {FACTOR:g}")

    gross = []
    for name, scale in scales.gradients.items():
        mine = ours.gross.get(name)
        theirs = max((errors.gross.get(name) or 0.0 for errors in eager.values()), default=0.0)
        if mine is None or not mine <= GROSS_FRACTION * scale + FACTOR * theirs:
            gross.append(name)
    if gross:
        more = f" and {len(gross) - 1} more" if len(gross) > 1 else ""
        reasons.append(f"the gradient of {gross[0]}{more} is missing, not finite or grossly wrong")
    return Verdict(not reasons, tuple(reasons), bound, ratio, relative_gradient_error(ours, scales))
