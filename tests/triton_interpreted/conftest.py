"""Collected only where Triton interprets kernels, which it decides once in a process: backends/test_triton_interpreted.py
starts such a one."""

import os
import sys
from pathlib import Path

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]
sys.path.append(str(Path(__file__).resolve().parents[1] / "backends"))
