"""The process of one part: ``python -m gpu_check.part REQUEST``. Each message is a line of JSON on its stdout."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

from .plan import Settings


class Report:
    """What a part says: ``result`` is all it has found so far and replaces what it said before."""

    def __init__(self, channel: TextIO, seconds: float) -> None:
        self._channel = channel
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the part's limit."""
        return self._deadline - time.monotonic()

    def result(self, result: dict[str, Any]) -> None:
        self._say({"result": result})

    def progress(self, text: str) -> None:
        self._say({"progress": text})

    def error(self, error: BaseException) -> None:
        """The first line: torch's further ones are a C++ stack."""
        lines = str(error).strip().splitlines()
        self._say({"error": f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__})

    def _say(self, message: dict[str, Any]) -> None:
        self._channel.write(json.dumps(message, allow_nan=False) + "\n")
        self._channel.flush()


def main() -> int:
    """Keep the channel to ourselves: whatever else prints to stdout goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.argv[1])
    settings = Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in request["settings"].items()})
    report = Report(channel, request["seconds"])
    try:
        module = importlib.import_module(f"gpu_check.{request['kind']}")
        module.run(settings, report, **request["arguments"])
    except Exception as error:  # whatever it is, it is this part's result
        report.error(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
