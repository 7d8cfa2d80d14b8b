"""OpenVINO on its CPU device."""

from __future__ import annotations

import sys
from typing import Any

import numpy
from torch import nn

from ..job import Job
from . import onnx_file
from .session import Session


class OpenVinoSession(Session):
    """``engine`` is an ``openvino.CompiledModel``."""

    def __init__(self, engine: Any, batch: int) -> None:
        super().__init__(batch)
        self.engine = engine

    def infer(self, images: numpy.ndarray) -> numpy.ndarray:
        return self.engine([images], share_inputs=True)[0]


def prepare(model: nn.Module, job: Job) -> Session:
    """One stream over all of the job's threads, in float32."""
    # Importing openvino reports that to its makers, unless the package that does so cannot be imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",  # a batch is one request: several streams would share nothing out
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": job.threads,
        "ENABLE_HYPER_THREADING": True,  # or fewer threads than asked for may run
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would get bfloat16 otherwise
    }
    core = openvino.Core()
    with onnx_file.exported(model, job) as path:
        engine = core.compile_model(core.read_model(path), "CPU", options)
    return OpenVinoSession(engine, job.batch)
