"""The CUDA convolutions on CPU tensors, by the emulator: a namespace with the operators' names and arguments."""

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_int64, c_void_p

import torch

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class Shape(Structure):
    _fields_ = [(name, c_int) for name in "N C H W K R S P Q".split()] + [
        ("stride", c_int * 2),
        ("padding", c_int * 2),
        ("dilation", c_int * 2),
        ("groups", c_int),
    ]


class Device(Structure):
    _fields_ = [("multiprocessors", c_int), ("shared_bytes", c_int)]


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
        *[(name, c_int) for name in "stages stage_bytes a_bytes shared_bytes row_tiles column_tiles splits split_chunks".split()],
    ]


class Guarded:
    """Memory full of NaN that a kernel has to write all of, and nothing of what lies around it."""

    MARGIN = 64  # elements

    def __init__(self, size, dtype):
        count = torch.Size(size).numel()
        self.memory = torch.full((count + 2 * self.MARGIN,), torch.nan, dtype=dtype)
        inside = self.memory[self.MARGIN : self.MARGIN + count]
        if len(size) == 4:
            N, C, H, W = size
            self.tensor = inside.view(N, H, W, C).permute(0, 3, 1, 2)
        else:
            self.tensor = inside.view(size)

    def check(self):
        count = self.tensor.numel()
        outside = (self.memory[: self.MARGIN], self.memory[self.MARGIN + count :])
        assert all(part.isnan().all() for part in outside), "written outside of the output"
        return self.tensor


def _address(tensor):
    return None if tensor is None else tensor.data_ptr()


class CudaConvolutions:
    """`multiprocessors` and `shared_bytes` are those of the device that tiles are chosen for."""

    def __init__(self, library, allow_tf32=False, multiprocessors=1, shared_bytes=99 << 10):
        self.library = ctypes.CDLL(str(library))
        self.allow_tf32 = allow_tf32
        self.device = Device(multiprocessors, shared_bytes)
        self.plans = []
        self.all_written = True  # the workspace, which is known by there being no NaN
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
        tensors = self._dense(x=x, weight=weight, residual=residual)
        problem = self._problem(tensors["x"], weight, stride, padding, dilation, groups)
        shape = problem.shape
        y = Guarded((shape.N, shape.K, shape.P, shape.Q), x.dtype)
        stats = Guarded((2, shape.K), torch.float32) if statistics else None
        params = Fprop(
            problem, Activation(_address(tensors["x"]), _address(prologue), prologue_relu),
            _address(tensors["weight"]), _address(y.tensor), _address(stats and stats.tensor), _address(epilogue),
            _address(tensors["residual"]), _address(residual_affine), relu,
        )  # fmt: skip
        self._run("fprop", params)
        return y.check(), stats.check() if stats else torch.empty(0)

    def conv_backward(
        self, grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
        prologue, prologue_relu, reduce, add, add_out, output_mask,
    ):  # fmt: skip
        tensors = self._dense(grad=grad, out=out, raw=raw, x=x, weight=weight, add=add, add_out=add_out)
        problem = self._problem(tensors["x"], weight, stride, padding, dilation, groups)
        shape = problem.shape
        mean_g, slope = (None, None) if raw is None else (means[0].clone(), affine[3] * means[1])
        draw = Draw(
            _address(tensors["grad"]), _address(tensors["out"]), _address(tensors["raw"]), _address(affine),
            _address(mean_g), _address(slope), relu,
        )  # fmt: skip
        operand = Activation(_address(tensors["x"]), _address(prologue), prologue_relu)
        dx = Guarded((shape.N, shape.C, shape.H, shape.W), x.dtype) if output_mask[0] or reduce else None
        dw = Guarded(weight.shape, x.dtype) if output_mask[1] else None
        sums = Guarded((2, shape.C), torch.float32) if reduce else None
        if dx:
            pointers = (tensors["weight"], dx.tensor, tensors["add"], tensors["add_out"], sums and sums.tensor)
            self._run("dgrad", Dgrad(problem, draw, *map(_address, pointers), operand))
        if dw:
            self._run("wgrad", Wgrad(problem, draw, operand, _address(dw.tensor)))
        dx = dx.check() if dx else None
        empty = x.new_empty(0)
        return (
            dx if output_mask[0] else empty,
            dw.check() if dw else empty,
            sums.check() if sums else torch.empty(0),
        )

    def conv_dgrad(self, *arguments):
        dx, _, sums = self.conv_backward(*arguments, (True, False))
        return dx, sums

    def conv_wgrad(self, *arguments):
        return self.conv_backward(*arguments, False, None, None, (False, True))[1]

    def unsupported(self, *arguments):
        reason = self.library.unsupported(byref(self._problem(*arguments)))
        return reason and reason.decode()

    def _dense(self, **tensors):
        return {
            name: t if t is None else t.contiguous(memory_format=torch.channels_last) for name, t in tensors.items()
        }

    def _problem(self, x, weight, stride, padding, dilation, groups):
        (N, C, H, W), (K, _, R, S) = x.shape, weight.shape
        P, Q = (
            (size + 2 * p - d * (taps - 1) - 1) // s + 1
            for size, taps, s, p, d in zip((H, W), (R, S), stride, padding, dilation)
        )
        pairs = [(c_int * 2)(*pair) for pair in (stride, padding, dilation)]
        return Problem(DTYPES[x.dtype], self.allow_tf32, Shape(N, C, H, W, K, R, S, P, Q, *pairs, groups), self.device)

    def _run(self, name, params):
        workspace = Guarded((getattr(self.library, f"{name}_workspace")(byref(params)) // 4,), torch.float32)
        error = getattr(self.library, name)(byref(params), workspace.tensor.data_ptr())
        assert error is None, error.decode()
        workspace.check()
        assert not self.all_written or not workspace.tensor.isnan().any(), "part of the workspace is not written"
        self.plans.append(getattr(self.library, f"{name}_plan")(byref(params)))
