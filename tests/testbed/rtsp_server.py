"""A real RTSP camera for tests, of GStreamer: 1280x720 H.264 at 30 fps at rtsp://127.0.0.1:PORT/cam.

    /usr/bin/python3 rtsp_server.py [PORT]

Run by the system's Python, with Debian's python3-gi, python3-numpy, gir1.2-gst-rtsp-server-1.0 and
gstreamer1.0-plugins-{base,good,bad,ugly}. Port 0, the default, takes a free one; the line `ready PORT` says which.
The top 16 rows hold the wall clock in milliseconds as 44 light or dark blocks, 16 pixels wide, lowest bit first, so
that a reader can measure how old a picture is. A line `freeze` on standard input stops the pictures, not the server.
"""

import sys
import threading
import time

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, FPS = 1280, 720, 30
CLOCK_BITS, CLOCK_BLOCK = 44, 16
LAUNCH = (
    "( appsrc name=source is-live=true do-timestamp=true format=time "
    f"caps=video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate={FPS}/1 "
    "! videoconvert ! video/x-raw,format=I420 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=3000 "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)

frozen = threading.Event()


def stamp(picture: np.ndarray, milliseconds: int) -> None:
    for bit in range(CLOCK_BITS):
        columns = slice(bit * CLOCK_BLOCK, (bit + 1) * CLOCK_BLOCK)
        picture[:CLOCK_BLOCK, columns] = 235 if milliseconds >> bit & 1 else 16


def push_pictures(source: Gst.Element, ended: threading.Event) -> None:
    texture = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 4 % 256).astype(np.uint8)
    began, number = time.time(), 0
    while not ended.is_set():
        picture = np.roll(texture, number * 4, axis=1)
        stamp(picture, int(time.time() * 1000))
        if (
            not frozen.is_set()
            and source.emit("push-buffer", Gst.Buffer.new_wrapped(picture.tobytes())) != Gst.FlowReturn.OK
        ):
            return
        number += 1
        time.sleep(max(0.0, began + number / FPS - time.time()))


def on_configure(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
    ended = threading.Event()
    media.connect("unprepared", lambda _media: ended.set())
    source = media.get_element().get_by_name("source")
    threading.Thread(target=push_pictures, args=(source, ended), daemon=True).start()


def obey() -> None:
    for line in sys.stdin:
        if line.strip() == "freeze":
            frozen.set()


def main() -> None:
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    factory.connect("media-configure", on_configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1] if len(sys.argv) > 1 else "0")
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print("ready", server.get_bound_port(), flush=True)
    threading.Thread(target=obey, daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
