"""A standard output that is closed, and pipes that are others."""

import io
import sys

import pytest

from resnet_fused.cli.output import NobodyListens, discard, listened_to


class Closed(io.StringIO):
    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


def test_standard_output_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(NobodyListens):
        with listened_to():
            print("line")
    discard()  # of a stream without a descriptor nothing is to be discarded


def test_another_pipe_is_closed():
    with pytest.raises(BrokenPipeError, match="a fifo"):
        with listened_to():
            raise BrokenPipeError(32, "Broken pipe", "a fifo")


def test_there_is_no_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with listened_to():
        print("line")
