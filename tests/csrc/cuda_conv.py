"""The CUDA convolutions on CPU tensors, by the emulator: a namespace with the operators' names and arguments."""

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from emulator import build
from package_build import nvcc_flags

CUDA = build.ROOT / "csrc" / "cuda"
KERNELS = ("conv_fprop", "conv_dgrad", "conv_wgrad", "conv_merge", "conv_fprop_sm90", "conv_dgrad_sm90",
           "conv_wgrad_sm90")  # .cu files, fmt: skip
HOST = [CUDA / "conv_unsupported.cpp", Path(__file__).parent / "cuda_conv_entry.cpp"]
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def build_library(sources=None, name="cuda_conv", **options) -> Path:
    """The launchers for ctypes, of csrc/cuda's KERNELS or of copies."""
    sources = sources or [CUDA / f"{kernels}.cu" for kernels in KERNELS]
    cxx_flags = ["-isystem", str(build.cuda_include())]
    return build.library(name, sources, HOST, nvcc_flags=nvcc_flags(), cxx_flags=cxx_flags, **options)


class Shape(Structure):
    _fields_ = [(name, c_int) for name in "N C H W K R S P Q".split()] + [
        ("stride", c_int * 2),
        ("padding", c_int * 2),
        ("dilation", c_int * 2),
        ("groups", c_int),
    ]


class Device(Structure):
    _fields_ = [("multiprocessors", c_int), ("shared_bytes", c_int), ("wgmma", c_bool)]


class Problem(Structure):
    _fields_ = [("dtype", c_int), ("allow_tf32", c_bool), ("shape", Shape), ("device", Device)]


class Activation(Structure):
    _fields_ = [("x", c_void_p), ("affine", c_void_p), ("relu", c_bool)]


class Draw(Structure):
    _fields_ = [(name, c_void_p) for name in "grad out raw affine mean_g slope".split()] + [("relu", c_bool)]


class Fprop(Structure):
    _fields_ = [
        ("problem", Problem),
        ("input", Activation),
        *[(name, c_void_p) for name in "w y stats epilogue residual residual_affine".split()],
        ("relu", c_bool),
    ]


class Dgrad(Structure):
    _fields_ = [
        ("problem", Problem),
        ("draw", Draw),
        *[(name, c_void_p) for name in "w dx add add_out sums".split()],
        ("input", Activation),
    ]


class Wgrad(Structure):
    _fields_ = [("problem", Problem), ("draw", Draw), ("input", Activation), ("dw", c_void_p)]


class Plan(Structure):
    _fields_ = [
        ("tile", c_int),
        ("vector", c_bool),
        ("long_chunks", c_bool),
        *[(name, c_int) for name in "stages stage_bytes a_bytes shared_bytes row_tiles column_tiles splits split_chunks".split()],
    ]


class Guarded:
    """Memory that kernels may use, and nothing around it. An output is full of NaN, all of which is to be overwritten."""

    MARGIN = 512  # bytes

    def __init__(self, emulated, size, dtype, offset=0):
        count = torch.Size(size).numel()
        self.emulated = emulated
        self.memory = torch.full((count + offset + 2 * self.MARGIN // dtype.itemsize,), torch.nan, dtype=dtype)
        start = self.MARGIN // dtype.itemsize + offset
        inside = self.memory[start : start + count]
        if len(size) == 4:
            N, C, H, W = size
            self.tensor = inside.view(N, H, W, C).permute(0, 3, 1, 2)
        else:
            self.tensor = inside.view(size)
        emulated.guard(self.tensor.data_ptr(), count * dtype.itemsize)

    def release(self):
        self.emulated.unguard(self.tensor.data_ptr())


def _address(tensor):
    return None if tensor is None else tensor.data_ptr()


class CudaConvolutions:
    """`device` is what tiles are chosen for: multiprocessors and bytes of shared memory. All tensors but vectors begin
    `offset` elements after a multiple of 16 bytes, and the `shifted`-th input of a call one element after one."""

    def __init__(self, emulated, allow_tf32=False, multiprocessors=1, shared_bytes=99 << 10, offset=0, shifted=None,
                 wgmma=False):  # fmt: skip
        self.emulated, self.library = emulated, emulated.functions
        self.allow_tf32 = allow_tf32
        self.device = Device(multiprocessors, shared_bytes, wgmma)
        self.offset, self.shifted = offset, shifted
        self.inputs = 0
        self.plans = []
        self.all_written = True  # the workspace, which is known by there being no NaN
        self.held = []
        for name, params in (("fprop", Fprop), ("dgrad", Dgrad), ("wgrad", Wgrad)):
            getattr(self.library, name).restype = c_char_p
            getattr(self.library, name).argtypes = [POINTER(params), c_void_p]
            getattr(self.library, f"{name}_workspace").restype = c_int64
            getattr(self.library, f"{name}_plan").restype = Plan
        self.library.unsupported.restype = c_char_p

    def conv_fprop(
        self, x, weight, stride, padding, dilation, groups,
        prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
    ):  # fmt: skip
        problem = self._problem(x, weight, stride, padding, dilation, groups)
        shape = problem.shape
        y = self._output((shape.N, shape.K, shape.P, shape.Q), x.dtype)
        stats = self._output((2, shape.K), torch.float32) if statistics else None
        params = Fprop(
            problem, Activation(self._input(x), self._input(prologue), prologue_relu), self._input(weight),
            _address(y), _address(stats), self._input(epilogue), self._input(residual), self._input(residual_affine),
            relu,
        )  # fmt: skip
        self._run("fprop", params)
        self.release()
        return y, stats if statistics else torch.empty(0)

    def conv_backward(
        self, grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
        prologue, prologue_relu, reduce, add, add_out, output_mask,
    ):  # fmt: skip
        problem = self._problem(x, weight, stride, padding, dilation, groups)
        shape = problem.shape
        mean_g, slope = (None, None) if raw is None else (means[0], affine[3] * means[1])
        draw = Draw(*map(self._input, (grad, out, raw, affine, mean_g, slope)), relu)
        operand = Activation(self._input(x), self._input(prologue), prologue_relu)
        dx = dw = sums = None
        if reduce:
            sums = self._output((2, shape.C), torch.float32)
        if output_mask[0] or reduce:
            dx = self._output((shape.N, shape.C, shape.H, shape.W), x.dtype)
            pointers = (self._input(weight), _address(dx), self._input(add), self._input(add_out), _address(sums))
            self._run("dgrad", Dgrad(problem, draw, *pointers, operand))
        if output_mask[1]:
            dw = self._output(weight.shape, x.dtype)
            self._run("wgrad", Wgrad(problem, draw, operand, _address(dw)))
        self.release()
        empty = x.new_empty(0)
        return (
            dx if output_mask[0] else empty,
            dw if output_mask[1] else empty,
            sums if reduce else torch.empty(0),
        )

    def conv_dgrad(self, *arguments):
        dx, _, sums = self.conv_backward(*arguments, (True, False))
        return dx, sums

    def conv_wgrad(self, *arguments):
        return self.conv_backward(*arguments, False, None, None, (False, True))[1]

    def unsupported(self, *arguments):
        reason = self.library.unsupported(byref(self._problem(*arguments)))
        return reason and reason.decode()

    def _output(self, size, dtype, shift=False):
        held = Guarded(self.emulated, size, dtype, 1 if shift else self.offset if len(size) == 4 else 0)
        self.held.append(held)
        return held.tensor

    def _input(self, tensor):
        """The address of a copy, NHWC."""
        if tensor is None:
            return None
        copy = self._output(tensor.shape, tensor.dtype, shift=self.inputs == self.shifted).copy_(tensor)
        self.inputs += 1
        return copy.data_ptr()

    def release(self):
        for held in self.held:
            held.release()
        self.held.clear()
        self.inputs = 0

    def _problem(self, x, weight, stride, padding, dilation, groups):
        (N, C, H, W), (K, _, R, S) = x.shape, weight.shape
        P, Q = (
            (size + 2 * p - d * (taps - 1) - 1) // s + 1
            for size, taps, s, p, d in zip((H, W), (R, S), stride, padding, dilation)
        )
        pairs = [(c_int * 2)(*pair) for pair in (stride, padding, dilation)]
        return Problem(DTYPES[x.dtype], self.allow_tf32, Shape(N, C, H, W, K, R, S, P, Q, *pairs, groups), self.device)

    def wgrad_plan(self, x, weight, stride, padding, dilation, groups):
        """For a plain gradient and input."""
        return self.library.wgrad_plan(byref(Wgrad(self._problem(x, weight, stride, padding, dilation, groups))))

    def _run(self, name, params):
        workspace = self._output((getattr(self.library, f"{name}_workspace")(byref(params)) // 4,), torch.float32)
        error = getattr(self.library, name)(byref(params), workspace.data_ptr())
        message = self.emulated.last_error()
        assert error is None and message is None, (error, message)
        assert not self.all_written or not workspace.isnan().any(), "part of the workspace is not written"
        self.plans.append(getattr(self.library, f"{name}_plan")(byref(params)))
