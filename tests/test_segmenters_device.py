"""No silent fallback: a CUDA that cannot be had is an error that says what is missing, and nothing else is printed.

The machine these tests run on may have no GPU, so stand-ins for NVIDIA's libraries are compiled and put in the path.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from stream_seg.errors import DeviceError, UsageError
from stream_seg.segmenters import device, load_segmenter
from stream_seg.segmenters.device import cores, parse_device
from tests.support import requires
from tests.tiny_models import batched_model

ROOT = Path(__file__).parent.parent
BUILT_WITH_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
MAJOR = str(onnxruntime.cuda_version).split(".")[0]
LIBRARIES = (
    f"libcublasLt.so.{MAJOR}",
    f"libcublas.so.{MAJOR}",
    f"libcudart.so.{MAJOR}",
    "libcurand.so.10",
    "libcudnn.so.9",
)

DRIVER = """
int cuInit(unsigned flags) { return %d; }
int cuDeviceGetCount(int *count) { *count = %d; return 0; }
"""

PROGRAM = """
import logging, sys
from pathlib import Path
from stream_seg.errors import DeviceError
from stream_seg.segmenters import load_segmenter
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
try:
    with load_segmenter(Path(sys.argv[1]), device=sys.argv[2]) as segmenter:
        print(segmenter.device, segmenter.provider)
except DeviceError as error:
    print(error)
"""


def outcome(model: Path, device: str, libraries: Path | None = None) -> list[str]:
    """The lines a process prints that loads `model` on `device`; nothing may reach its stderr."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), LD_LIBRARY_PATH=str(libraries or ""))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), device], env=environment, capture_output=True, text=True, timeout=50
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def driver(folder: Path, *, status: int = 0, devices: int = 1) -> Path:
    _compile(DRIVER % (status, devices), folder / "libcuda.so.1")
    return folder


def _compile(source: str, library: Path) -> None:
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), f"-Wl,-soname,{library.name}"]
    subprocess.run(command, input=source, text=True, check=True, timeout=30)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return batched_model(tmp_path / "tiny.onnx")


needs_cuda_build = pytest.mark.skipif(not BUILT_WITH_CUDA, reason="this onnxruntime is built without CUDA")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
    ],
)
def test_device_names_are_understood(text: str, parsed: tuple[str, int]) -> None:
    assert parse_device(text) == parsed


@pytest.mark.parametrize("device", ["gpu", "", 0, None])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"device must be auto, cpu, cuda or cuda:N, not {device!r}"):
        parse_device(device)


def test_at_least_one_core_and_no_more_than_the_machine_has() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_no_more_cores_than_a_container_may_use(
    files: dict[str, str], granted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / ("." if name == "cpu.max" else "cpu") / name).write_text(content)
    monkeypatch.setattr(device, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(device, "_siblings", str)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)
    assert device.cores() == granted


def test_auto_says_in_one_line_what_it_chose(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "stream_seg"), load_segmenter(model) as segmenter:
        (line,) = caplog.messages
        assert line.startswith("device auto: chose ")
        assert (segmenter.device == "cpu") == ("the CPU, because " in line)


@pytest.mark.parametrize("may_have_gpu", [False, True])
@pytest.mark.parametrize("providers", [["CPUExecutionProvider"], ["CUDAExecutionProvider"]])
def test_where_there_never_was_a_gpu_only_the_curious_are_told(
    providers: list[str], may_have_gpu: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_library(_name: str) -> None:
        raise OSError

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(device, "may_have_gpu", lambda: may_have_gpu)
    with caplog.at_level(logging.DEBUG, "stream_seg"):
        assert device.choose("auto") == "cpu"
    assert [record.levelno for record in caplog.records] == [logging.INFO if may_have_gpu else logging.DEBUG]
    with pytest.raises(DeviceError, match="cannot use CUDA: "):
        device.choose("cuda")


@pytest.mark.parametrize(
    ("files", "may_be"),
    [
        ({}, True),  # no /sys, as in some sandboxes
        ({"sys/pci/devices/0/vendor": "0x8086", "sys/pci/devices/0/class": "0x030000"}, False),
        ({"sys/pci/devices/0/vendor": "0x10de", "sys/pci/devices/0/class": "0x020000"}, False),  # a network card
        ({"sys/pci/devices/0/vendor": "0x10de\n", "sys/pci/devices/0/class": "0x030200\n"}, True),
        ({"sys/pci/devices/0/vendor": "0x10de"}, True),  # of which the rest cannot be read
        ({"sys/usb/devices/0": ""}, False),
        ({"sys/usb/devices/0": "", "dev/nvidiactl": ""}, True),
        ({"sys/usb/devices/0": "", "dev/nvme0": ""}, False),
        ({"sys/usb/devices/0": "", "dev/nvhost-ctrl": ""}, True),
        ({"sys/usb/devices/0": "", "dev/dxg": ""}, True),
    ],
)
def test_signs_of_a_gpu(files: dict[str, str], may_be: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(device, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(device, "_BUSES", tmp_path / "sys")
    for platform, answer in (("linux", may_be), ("win32", True), ("darwin", False)):
        monkeypatch.setattr(device.sys, "platform", platform)
        assert device.may_have_gpu() == answer


def test_a_chosen_cpu_needs_no_words(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stream_seg"), load_segmenter(model, device="cpu") as segmenter:
        assert segmenter.provider == "CPUExecutionProvider"
        assert not caplog.messages


def test_an_onnxruntime_without_cuda_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match=r"built without it; pip install 'stream-seg\[cuda\]'"):
        load_segmenter(model, device="cuda")


@needs_cuda_build
@requires("cc")
class TestCudaThatCannotBeHad:
    def test_a_driver_that_fails(self, model: Path, tmp_path: Path) -> None:
        (line,) = outcome(model, "cuda", driver(tmp_path, status=999))
        assert line == (
            "cannot use CUDA: the NVIDIA driver sees no device; see what nvidia-smi says, or use --device cpu"
        )

    def test_a_device_that_does_not_exist(self, model: Path, tmp_path: Path) -> None:
        (line,) = outcome(model, "cuda:2", driver(tmp_path, devices=2))
        assert line.startswith("cannot use CUDA: there is no cuda:2 on this machine; choose from cuda:0 to cuda:1")

    def test_a_missing_library_is_named_with_the_install_line(self, model: Path, tmp_path: Path) -> None:
        (line,) = outcome(model, "cuda", driver(tmp_path))
        assert line == (
            f"cannot use CUDA: the library {LIBRARIES[0]} cannot be loaded; pip install 'stream-seg[cuda]', "
            "or use --device cpu"
        )

    def test_auto_takes_the_cpu_and_says_why(self, model: Path, tmp_path: Path) -> None:
        assert outcome(model, "auto", driver(tmp_path)) == [
            f"device auto: chose the CPU, because the library {LIBRARIES[0]} cannot be loaded",
            "cpu CPUExecutionProvider",
        ]

    def test_onnx_runtime_falling_back_by_itself_is_an_error(self, model: Path, tmp_path: Path) -> None:
        for name in LIBRARIES:
            _compile("int stand_in;", tmp_path / name)
        (line,) = outcome(model, "cuda", driver(tmp_path))
        assert line.startswith("cannot use CUDA: onnxruntime could not start it (libonnxruntime_providers_cuda.so: ")
        assert line.endswith("); pip install 'stream-seg[cuda]', or use --device cpu")


def test_auto_takes_the_cpu_and_its_file_where_cuda_is_there_but_computes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An old driver, say: the device is counted and the libraries load."""
    for name, answer in (("_device_count", lambda: 1), ("_load_libraries", lambda: None)):
        monkeypatch.setattr(device, name, answer)
    monkeypatch.setattr(device, "_sound", set())
    monkeypatch.setattr(device, "_trouble", lambda _index: ("CUDA failure 35: the driver is old", "update it"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with caplog.at_level(logging.INFO, "stream_seg"), load_segmenter("compact") as segmenter:
        assert caplog.messages == ["device auto: chose the CPU, because CUDA failure 35: the driver is old"]
        assert (segmenter.device, segmenter.model_name) == ("cpu", "int8.onnx")
    with pytest.raises(DeviceError, match="the driver is old; update it, or use --device cpu"):
        load_segmenter("compact", device="cuda")


def test_what_is_tried_on_cuda_is_a_graph_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_options", lambda _index: {})
    opened = onnxruntime.InferenceSession

    def on_the_cpu(graph: bytes, options: onnxruntime.SessionOptions, **_: object) -> onnxruntime.InferenceSession:
        made = opened(graph, options, providers=["CPUExecutionProvider"])
        assert made.run(None, {"x": np.full((1, 1, 1, 1), 2, np.float32)})[0].item() == 6
        monkeypatch.setattr(made, "get_providers", lambda: ["CUDAExecutionProvider"])
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    assert device._trouble(0) is None


def test_what_failed_on_cuda_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [("CUDA failure 2: out of memory", "free some"), None]
    for name, answer in (("_device_count", lambda: 1), ("_load_libraries", lambda: None)):
        monkeypatch.setattr(device, name, answer)
    monkeypatch.setattr(device, "_sound", set())
    monkeypatch.setattr(device, "_trouble", lambda _index: tries.pop(0))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert [device.choose("auto") for _ in range(3)] == ["cpu", "cuda:0", "cuda:0"]
    assert tries == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/cuda_call.cc:165 CudaCall(...) "
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version;\nGPU=0 ; hostname=h",
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Status Message: "
            "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device",
            "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device",
        ),
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : something else\nin two lines", "something else in two lines"),
    ],
)
def test_of_a_long_error_what_cuda_said_is_kept(message: str, said: str) -> None:
    assert device.cause(message) == said


@needs_cuda_build
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_the_sentence_names_it_and_the_install_line(model: Path) -> None:
    (line,) = outcome(model, "cuda")
    assert line == (
        "cannot use CUDA: libcuda.so.1 of the NVIDIA driver is missing; install the driver, then "
        "pip install 'stream-seg[cuda]', or use --device cpu"
    )
