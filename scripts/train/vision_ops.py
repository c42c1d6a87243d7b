"""Import this before torchvision: where its compiled operators do not load, they come from scripts/oracle instead.

That happens beside a CPU build of torch, since torchvision's wheels are CUDA builds. The replacements in plain torch
are slower but the same function. Training itself pools by `pooling.py`, so nothing here is differentiated.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "oracle"))

import torchvision_cpu  # noqa: F401  it registers the operators
