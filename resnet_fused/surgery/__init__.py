"""Turns a model's residual blocks and stem into fused ones, in place, and back; says what runs and why, and measures what should."""

from resnet_fused.surgery.explain import Explanation, explain
from resnet_fused.surgery.fuse import fuse, unfuse
from resnet_fused.surgery.tune import tune

__all__ = ["Explanation", "explain", "fuse", "tune", "unfuse"]
