"""`python -m stream_seg` is the command `stream-seg`."""

import sys

from stream_seg.cli import main

sys.exit(main())
