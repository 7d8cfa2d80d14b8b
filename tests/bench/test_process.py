"""Workers: messages carry no paths, deaths and hangs are named, output does not disturb the replies."""

import io
import json

import pytest

from resnet_fused.bench import worker
from resnet_fused.bench.process import WorkerFailed, WorkerProcess


def test_describe_leaves_out_directories_and_further_lines():
    error = RuntimeError("cannot open /secret/place/kernel.so, see 3/4 of it\nat /other/line")
    assert worker.describe(error) == "RuntimeError: cannot open kernel.so, see 3/4 of it"
    assert worker.describe(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_serve_answers_errors_and_goes_on():
    replies = []
    requests = [{"do": "prepare", "job": {}}, {"do": "hello"}]
    worker.serve(io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), replies.append)
    assert replies[0]["error"].startswith("TypeError") and replies[1] == {"value": None}


def test_a_worker_that_does_not_answer_in_time_and_one_that_died_are_named():
    process = WorkerProcess(1)
    try:
        with pytest.raises(WorkerFailed, match="no answer within 0 s"):
            process.ask("hello", 0.0)
        process._process.kill()
        with pytest.raises(WorkerFailed, match="killed by SIGKILL"):
            process.ask("hello", 30.0)
    finally:
        process.close()
