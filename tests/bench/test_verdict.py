"""The rule that decides who is right, on known numbers."""

import math

import pytest

from resnet_fused.bench.verdict import FLOAT32_EPSILON, Errors, Scales, gradient_ratio, judge, output_bound

NAMES = ("a", "b", "c")
SCALES = Scales(1.0, dict.fromkeys(NAMES, 1.0))
REDUCTION = 4


def errors(output, *gradients):
    return Errors(output, dict(zip(NAMES, gradients)))


EAGER = {"nchw": errors(1e-5, 1e-4, 1e-4, 1e-4), "channels_last": errors(2e-5, 2e-4, 2e-4, 2e-4)}


def verdict(ours):
    return judge(ours, EAGER, SCALES, REDUCTION)


def test_eager_itself_is_right():
    assert all(verdict(ours).right for ours in EAGER.values())


def test_output_bound_takes_the_larger_layout_and_the_rounding_of_the_sum():
    assert output_bound(EAGER, 1.0, REDUCTION) == 2 * 2e-5 + 2 * FLOAT32_EPSILON


def test_output_just_beyond_the_bound_is_wrong():
    bound = output_bound(EAGER, 1.0, REDUCTION)
    assert verdict(errors(bound, 0, 0, 0)).right
    beyond = verdict(errors(bound * 1.0001, 0, 0, 0))
    assert not beyond.right and "output error" in beyond.reasons[0]


def test_gradients_are_judged_by_their_median():
    assert verdict(errors(0, 3.9e-4, 3.9e-4, 1e-2)).right  # one flipped ReLU
    many = verdict(errors(0, 1e-5, 4.1e-4, 4.1e-4))
    assert not many.right and many.gradient_ratio == pytest.approx(2.05)


def test_one_grossly_wrong_gradient_is_wrong_although_the_median_is_fine():
    one = verdict(errors(0, 1e-4, 1e-4, 1.0))
    assert one.gradient_ratio < 2 and not one.right
    assert "c" in one.reasons[0] and "grossly wrong" in one.reasons[0]


def test_missing_and_not_finite_results_are_wrong():
    assert not verdict(errors(0, 1e-4, 1e-4)).right
    assert not verdict(errors(0, 1e-4, 1e-4, None)).right
    assert "not finite" in verdict(errors(None, 1e-4, 1e-4, 1e-4)).reasons[0]
    nothing = verdict(errors(0))
    assert not nothing.right and nothing.gradient_ratio == math.inf


def test_eager_error_of_zero_by_luck_counts_as_half_an_ulp():
    exact = {"channels_last": errors(0, 0, 0, 0)}["channels_last"]
    assert gradient_ratio(errors(0, *[FLOAT32_EPSILON / 2] * 3), exact, SCALES) == 1
    assert gradient_ratio(exact, exact, Scales(0, dict.fromkeys(NAMES, 0.0))) == 1


def test_inference_has_no_gradients_to_judge():
    eager = {layout: Errors(1e-5, {}) for layout in EAGER}
    decided = judge(Errors(1e-5, {}), eager, Scales(1.0, {}), REDUCTION)
    assert decided.right and decided.gradient_ratio is None and decided.gradient_worst is None


def test_of_several_steps_the_luckiest_is_compared_and_the_unluckiest_must_not_be_gross():
    ours = errors(1e-5, 1e-4, 1e-4, 1e-4)
    flipped = Errors(ours.output, ours.gradients, {**ours.gradients, "b": 0.09})
    assert verdict(flipped).right and verdict(flipped).gradient_ratio == 0.5
    missing = verdict(Errors(ours.output, ours.gradients, {**ours.gradients, "b": 1.0}))
    assert missing.reasons == ("the gradient of b is missing, not finite or grossly wrong",)
    assert not verdict(Errors(ours.output, ours.gradients, {**ours.gradients, "b": None})).right
