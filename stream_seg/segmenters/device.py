"""Which device a model runs on, and whether CUDA can be had, asked before ONNX Runtime is.

ONNX Runtime answers a request for a CUDA it cannot load with lines on stderr and a session on the CPU. So the driver
and the libraries are tried here first, where the missing one has a name, and then a graph of two nodes: an old driver
and a GPU that ONNX Runtime has no kernels for show only when something is computed.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from stream_seg.errors import DeviceError, UsageError

logger = logging.getLogger(__name__)

INSTALL = "pip install 'stream-seg[cuda]'"

SILENT = 4
"""ONNX Runtime's "fatal": its lower levels repeat what the exceptions say."""

_PROBE = base64.b64decode(
    "CAg6YgoPCgF4CgF4EgFjIgRDb252Cg4KAWMKAXgSAXkiA0FkZBIFcHJvYmVaGwoBeBIWChQIARIQCgIIAQoCCAEKAggBCgIIAWIbCgF5EhYKFAgB"
    "EhAKAggBCgIIAQoCCAEKAggBQgQKABAR"
)
"""An ONNX graph: y = Conv(x, x) + x, (1, 1, 1, 1) float32. The first is cuDNN's work, the second ONNX Runtime's own."""


def parse_device(device: str) -> tuple[str, int]:
    """Split `auto`, `cpu`, `cuda` or `cuda:N` into a kind and an index. Raise `UsageError` for anything else."""
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d{1,3})", str(device))
    if match is None:
        raise UsageError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")
    return match[1] or "cuda", int(match[2] or 0)


def kind_of(device: str) -> Literal["cpu", "cuda"]:
    """What a device comes down to on this machine: "cuda" for `auto` where it can be had."""
    kind, index = parse_device(device)
    if kind == "auto":
        try:
            require_cuda(index)
        except NoCuda:
            return "cpu"
    return "cpu" if kind == "cpu" else "cuda"


def choose(device: str) -> str:
    """`cpu` or `cuda:N`; `auto` is the first CUDA device where it can be had, and a line of log says which it was.

    The line is for those who have an NVIDIA GPU, or may have one; elsewhere it is for those who want to know all.

    Raise `NoCuda` where CUDA is asked for and cannot be had.
    """
    kind, index = parse_device(device)
    if kind == "cpu":
        return "cpu"
    try:
        require_cuda(index)
    except NoCuda as error:
        if kind == "cuda":
            raise
        level = logging.INFO if error.has_driver or may_have_gpu() else logging.DEBUG
        logger.log(level, "device auto: chose the CPU, because %s", error.reason)
        return "cpu"
    if kind == "auto":
        logger.info("device auto: chose cuda:%d, the first CUDA device", index)
    return f"cuda:{index}"


class NoCuda(DeviceError):
    """CUDA cannot be had. `reason` says why, the message also what to do.

    `has_driver` is False where not even NVIDIA's driver was found, or looked for: there may be no GPU of theirs at all.
    """

    def __init__(self, reason: str, remedy: str = INSTALL, *, has_driver: bool = True) -> None:
        super().__init__(f"cannot use CUDA: {reason}; {remedy}, or use --device cpu")
        self.reason = reason
        self.has_driver = has_driver


def require_cuda(index: int) -> None:
    """Raise `NoCuda`, naming what is missing, unless CUDA device `index` can be had; loads the CUDA libraries."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NoCuda("the installed onnxruntime is built without it", has_driver=False)
    count = _device_count()
    if index >= count:
        raise NoCuda(f"there is no cuda:{index} on this machine", f"choose from cuda:0 to cuda:{count - 1}")
    _load_libraries()
    if index not in _sound:
        trouble = _trouble(index)
        if trouble is not None:
            raise NoCuda(*trouble)
        _sound.add(index)


_DEVICES, _BUSES = Path("/dev"), Path("/sys/bus")
_NODES = ("nvidia*", "nvhost*", "dxg")
"""Of the driver, of Jetson boards, and of any GPU under WSL."""
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""A vendor of PCI devices, and how the class of a GPU begins."""


def may_have_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU, with a driver or without, or that cannot be told."""
    if sys.platform == "darwin":  # has no driver for them
        return False
    if sys.platform != "linux" or not _BUSES.is_dir():
        return True
    try:
        if any(any(_DEVICES.glob(node)) for node in _NODES):
            return True
        return any(map(_is_nvidia_gpu, (_BUSES / "pci" / "devices").glob("*")))
    except OSError:
        return True


def _is_nvidia_gpu(device: Path) -> bool:
    vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    return vendor == _NVIDIA and kind.startswith(_DISPLAY)


def cuda_options(index: int) -> dict[str, str]:
    """CUDA provider options: no exhaustive search of convolutions (it takes up to a second per new input shape)."""
    return {
        "device_id": str(index),
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        # Buffers grow by what is asked, not to the next power of two: shapes are few, and GPUs are shared.
        "arena_extend_strategy": "kSameAsRequested",
    }


def cores() -> int:
    """How many physical cores this process may use: affinity and container quota count, threads of a core do not."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = len({_siblings(cpu) for cpu in os.sched_getaffinity(0)})
    return max(1, min(allowed, _quota()))


_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files with the microseconds granted and those in which they are, of version 2 and of version 1."""


def _quota() -> int:
    """Whole CPUs a Linux control group grants ("200000 100000" is 2), or a large number."""
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            granted, period = (int(word) for file in files for word in (_CONTROL_GROUPS / file).read_text().split())
            if granted > 0:  # -1 is without a limit
                return granted // period
    return 1 << 16


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:  # a container that hides the topology
        return str(cpu)


def _device_count() -> int:
    """The number of CUDA devices, asked from the driver: cheap, and needs nothing but the driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        remedy = f"install the driver, then {INSTALL}"
        raise NoCuda(f"{name} of the NVIDIA driver is missing", remedy, has_driver=False) from None
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise NoCuda("the NVIDIA driver sees no device", "see what nvidia-smi says")
    return count.value


def _load_libraries() -> None:
    """Load what ONNX Runtime's CUDA provider links to, from NVIDIA's packages if installed, else from the system."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find
        onnxruntime.preload_dlls()
    for name in _libraries(str(onnxruntime.cuda_version).split(".")[0]):
        try:
            ctypes.CDLL(name)
        except OSError:
            raise NoCuda(f"the library {name} cannot be loaded") from None


_sound: set[int] = set()
"""Devices on which something was computed. What fails is tried again: a GPU may have been busy."""


def _trouble(index: int) -> tuple[str, str] | None:
    """Why ONNX Runtime can compute nothing on a CUDA device, and what to do; None where it can."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    onnxruntime.set_default_logger_severity(SILENT)
    providers = [("CUDAExecutionProvider", cuda_options(index))]
    try:
        session = onnxruntime.InferenceSession(_PROBE, options, providers=providers, enable_fallback=0)
        if "CUDAExecutionProvider" not in session.get_providers():
            return f"onnxruntime could not start it{_lacking()}", INSTALL
        session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
    except Exception as error:  # ONNX Runtime raises many kinds, and new ones with each version
        return f"onnxruntime cannot compute on it: {cause(str(error))}", "see what nvidia-smi says"
    return None


def _lacking() -> str:
    """What the system says of ONNX Runtime's CUDA library, which links to others in each version."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    if sys.platform == "win32":
        return ""  # which tells no more than that a library cannot be loaded
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f" ({str(error).replace(f'{folder}/', '')})"
    return ""


def cause(message: str) -> str:
    """Of an error of ONNX Runtime, what CUDA said, or else its message without prefix and places in its source."""
    said = re.search(r"(CU[A-Z]+\w*) (failure|error) \w+: ?([^;\n]+)", message)
    text = said[0] if said else re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+", "", message)
    return " ".join(text.split())[:300]


def _libraries(cuda: str) -> list[str]:
    if sys.platform == "win32":
        return [f"cublasLt64_{cuda}.dll", f"cublas64_{cuda}.dll", f"cudart64_{cuda}.dll", "cudnn64_9.dll"]
    toolkit = [f"lib{name}.so.{cuda}" for name in ("cublasLt", "cublas", "cudart")]
    return [*toolkit, "libcurand.so.10", "libcudnn.so.9"]
