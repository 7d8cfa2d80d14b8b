"""``python -m resnet_fused`` is the command ``resnet-fused``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
