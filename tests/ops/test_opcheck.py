"""Schemas, fake kernels and autograd registration of every operator, by PyTorch's own check; Triton's, whose kernels
need a GPU or the interpreter, are checked by it in tests/interpreted/test_library.py.
"""

import importlib.util

import pytest
import torch
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import CONVS
from torch._subclasses import FakeTensorMode

from resnet_fused import backends, ops

NAMESPACE = torch.ops.resnet_fused
EVERYDAY = ("odd_channels",)
FAKE_EVERYDAY = (*EVERYDAY, "pixels_unread", "stem", "groups", "one_pixel", "one_channel", "non_square")
# Whatever decides about a result's sizes and format, once each; how a CPU computes it does not.
DESCRIBED = [p for p in CONVS if p.id in (*FAKE_EVERYDAY, "dilated")]
# Sizes that are symbols cannot be told apart, but for those that are 1.
TRACED = [p for p in DESCRIBED if p.id in ("odd_channels", "one_pixel", "groups")]


def _problems(everyday, problems=DESCRIBED):
    return [pytest.param(p, id=p.id, marks=() if p.id in everyday else pytest.mark.slow) for p in problems]


def test_every_operator_has_a_case():
    problem = CONVS[0]
    covered = {make_case(mode, problem, torch.float32, torch.channels_last).operator for mode in MODES}
    for namespace in ("resnet_fused", "resnet_fused_library", "resnet_fused_triton"):
        registered = {
            name.removeprefix(f"{namespace}::").split(".")[0]
            for name in torch._C._dispatch_get_all_op_names()
            if name.startswith(f"{namespace}::")
        }
        assert covered == registered - {"bn_update_running"}  # writes to its arguments: test_bn_update_running.py


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["nhwc", pytest.param("nchw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("problem", _problems(EVERYDAY, TRACED))
def test_opcheck(problem, layout, mode):
    """Traced with symbolic sizes too, which takes nine tenths of its time."""
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    report = torch.library.opcheck(getattr(NAMESPACE, case.operator).default, case.arguments)
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [m for m in MODES if m.startswith(("fprop", "backward", "dgrad", "wgrad", "chain"))])
@pytest.mark.parametrize("problem", [p for p in CONVS if p not in DESCRIBED], ids=lambda p: p.id)
def test_schema(problem, mode):
    """Nothing is written or returned that the schema does not say, by any of a CPU's algorithms."""
    case = make_case(mode, problem, torch.float32, torch.channels_last)
    report = torch.library.opcheck(getattr(NAMESPACE, case.operator).default, case.arguments, test_utils="test_schema")
    assert set(report.values()) == {"SUCCESS"}


def _description(tensor):
    # The stride of an axis of one element addresses nothing; aten's own differ between its kernels.
    strides = tuple(stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1)
    return tensor.shape, tensor.dtype, tensor.device, strides


def _check_descriptions(case, real, namespace):
    with FakeTensorMode() as fake_mode:
        fake = case.mapped(fake_mode.from_tensor).run(namespace)
    assert [_description(t) for t in fake] == [_description(t) for t in case.run(real)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", _problems(FAKE_EVERYDAY))
def test_fake_results_are_described_as_real_ones(problem, layout, mode):
    for dtype in DTYPES.values():
        _check_descriptions(make_case(mode, problem, dtype, FORMATS[layout]), ops.get("cpu"), NAMESPACE)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", _problems(EVERYDAY))
def test_fake_results_are_described_as_triton_s(problem, layout, mode):
    """What a result is like does not depend on its kernels, none of which runs."""
    from resnet_fused.backends.triton import launch

    with launch.replaced(lambda *_: None):
        for dtype in DTYPES.values():
            case = make_case(mode, problem, dtype, FORMATS[layout])
            _check_descriptions(case, ops.get("triton"), torch.ops.resnet_fused_triton)


def test_signatures_are_the_extension_s():
    for schema in backends.schemas.SCHEMAS:
        name = schema.partition("(")[0]
        signatures = [
            str(getattr(namespace, name).default._schema).partition("::")[2]
            for namespace in (NAMESPACE, torch.ops.resnet_fused_triton)
        ]
        assert signatures[0] == signatures[1]
        assert getattr(torch.ops.resnet_fused_triton, name).default.tags == getattr(NAMESPACE, name).default.tags


@pytest.mark.parametrize("weight_layout", FORMATS)
@pytest.mark.parametrize("layout", FORMATS)
def test_mixed_formats_follow_aten(layout, weight_layout):
    x = torch.randn(2, 4, 5, 6).contiguous(memory_format=FORMATS[layout]).requires_grad_()
    weight = torch.randn(3, 4, 3, 3).contiguous(memory_format=FORMATS[weight_layout]).requires_grad_()
    eager = torch.nn.functional.conv2d(x, weight, None, 1, 1)
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    for mode in (None, FakeTensorMode()):
        tensors = (x.detach(), weight.detach())
        if mode is not None:
            tensors = tuple(map(mode.from_tensor, tensors))
        y, _ = NAMESPACE.conv_fprop(*tensors, *geometry, None, False, False, None, None, None, False)
        assert y.stride() == eager.stride()
        grads = NAMESPACE.conv_backward(
            y, None, None, None, None, False, *tensors, *geometry, None, False, False, None, None, [True, True]
        )
        aten = torch.autograd.grad(eager, (x, weight), torch.ones_like(eager), retain_graph=True)
        assert grads[0].stride() == aten[0].stride()
        assert grads[1].stride() == weight.stride()
