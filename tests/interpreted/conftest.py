"""Tests that Triton's interpreter runs: in a process of their own, where TRITON_INTERPRET=1.

backends/test_triton_conv.py and backends/test_triton_interpreted.py start it.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True)
def ieee():
    """float32 with all its bits."""
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = allowed
