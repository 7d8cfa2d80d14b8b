"""A standard output that is closed, and pipes that are others."""

import sys

import pytest
from unread_pipe import closed_pipe

from resnet_fused.cli.output import NobodyListens, discard, listened_to


@pytest.mark.parametrize("length", (1, 1 << 20))  # that is buffered, and that is not
def test_standard_output_is_closed(monkeypatch, length):
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    with pytest.raises(NobodyListens):
        with listened_to():
            print("a" * length)
    discard()
    sys.stdout.close()


def test_another_pipe_is_closed():
    with pytest.raises(BrokenPipeError, match="a fifo"):
        with listened_to():
            raise BrokenPipeError(32, "Broken pipe", "a fifo")


def test_there_is_no_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    done = False
    with listened_to():
        print("line")
        done = True
    assert done
