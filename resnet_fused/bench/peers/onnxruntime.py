"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

import os
from typing import Any

import numpy
from torch import nn

from ..job import Job
from . import onnx_file
from .session import Session


class OnnxRuntimeSession(Session):
    """``engine`` is an ``onnxruntime.InferenceSession``."""

    def __init__(self, engine: Any, batch: int) -> None:
        super().__init__(batch)
        self.engine = engine

    def infer(self, images: numpy.ndarray) -> numpy.ndarray:
        return self.engine.run([onnx_file.OUTPUT], {onnx_file.INPUT: images})[0]


def prepare(model: nn.Module, job: Job) -> Session:
    """All graph optimisations, the job's threads, and no thread left spinning after a step."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when the library is loaded
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    # Spinning on after a step would take time from the next contender's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with onnx_file.exported(model, job) as path:
        engine = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return OnnxRuntimeSession(engine, job.batch)
