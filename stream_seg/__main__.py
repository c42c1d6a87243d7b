"""`python -m stream_seg` is the command `stream-seg`."""

from stream_seg.cli import program

program()
