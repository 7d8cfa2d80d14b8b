"""Turns a model's residual blocks and stem into fused ones, in place, and back; says what runs and why."""

from resnet_fused.surgery.explain import Explanation, explain
from resnet_fused.surgery.fuse import fuse, unfuse

__all__ = ["Explanation", "explain", "fuse", "unfuse"]
