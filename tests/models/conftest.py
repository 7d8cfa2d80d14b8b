import sys
from pathlib import Path

# After all else: tests/modules holds the comparisons with eager that these tests share.
sys.path.append(str(Path(__file__).resolve().parents[1] / "modules"))
