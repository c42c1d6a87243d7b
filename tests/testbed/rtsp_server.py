"""A real RTSP camera for tests, of GStreamer: H.264 with the wall clock in its pictures, at rtsp://127.0.0.1:PORT/cam.

    /usr/bin/python3 rtsp_server.py [--port N] [--size 1280x720] [--fps 30] [--gop 30] [--codec h264|mjpeg]
                                    [--mounts cam,door] [--sound none|too|only]
                                    [--user NAME --password WORD [--auth basic|digest]]

Run by the system's Python, with Debian's python3-gi, python3-numpy, gir1.2-gst-rtsp-server-1.0 and
gstreamer1.0-plugins-{base,good,bad,ugly}. Port 0, the default, takes a free one; the line `ready PORT` says which.
All who watch one mount share one encoder, so that many feeds cost little. TCP and UDP are both served.

The top 16 rows hold the wall clock in milliseconds as 44 light or dark blocks, each WIDTH // 44 pixels wide, lowest bit
first, so that a reader can measure how old a picture is. The sound is a tone of 1 kHz in the first 0.2 s of each
second. Lines on standard input are obeyed:

    freeze      no more pictures come, the server, its connections and the sound stay
    resume      they come again
    loss 0.05   that share of the RTP packets is lost, as by a bad network
"""

import argparse
import random
import sys
import threading
import time

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CLOCK_BITS, CLOCK_ROWS = 44, 16
TONE_SECONDS = 0.2
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate=3000 "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}

# The tee goes on where nobody wants the sound.
SOUND = (
    "appsrc name=sound is-live=true format=time caps=audio/x-alaw,rate=8000,channels=1 "
    "! tee allow-not-linked=true ! queue ! rtppcmapay pt=8 name="
)

frozen = threading.Event()
share_lost = [0.0]
chance = random.Random(0)


def stamp(picture: np.ndarray, milliseconds: int) -> None:
    block = picture.shape[1] // CLOCK_BITS
    for bit in range(CLOCK_BITS):
        picture[:CLOCK_ROWS, bit * block : (bit + 1) * block] = 235 if milliseconds >> bit & 1 else 16


def push_pictures(source: Gst.Element, size: tuple[int, int], fps: int, ended: threading.Event) -> None:
    width, height = size
    texture = (np.add.outer(np.arange(height), np.arange(width)) // 4 % 256).astype(np.uint8)
    began, number = time.time(), 0
    while not ended.is_set():
        picture = np.roll(texture, number * 4, axis=1)
        stamp(picture, int(time.time() * 1000))
        # Stamped with the time since the pipeline ran: one pushed just before would seem to belong hours later, and the
        # server wait as long before it sends the first packet.
        if not frozen.is_set() and source.current_state == Gst.State.PLAYING:
            source.emit("push-buffer", Gst.Buffer.new_wrapped(picture.tobytes()))
        number += 1
        time.sleep(max(0.0, began + number / fps - time.time()))


def push_sound(source: Gst.Element, ended: threading.Event) -> None:
    silence, tone = b"\xd5" * 320, (b"\xaa" * 4 + b"\x2a" * 4) * 40
    while source.current_state != Gst.State.PLAYING:
        if ended.wait(0.04):
            return
    began, number = time.time(), 0
    first = source.get_clock().get_time() - source.get_base_time()
    while not ended.wait(max(0.0, began + (number + 1) * 0.04 - time.time())):
        captured = began + number * 0.04
        buffer = Gst.Buffer.new_wrapped(tone if captured % 1 < TONE_SECONDS else silence)
        buffer.pts, buffer.duration = first + number * 40 * Gst.MSECOND, 40 * Gst.MSECOND
        source.emit("push-buffer", buffer)
        number += 1


def lose(pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
    """Drop single packets; a large picture comes as a list of them."""
    if not share_lost[0]:
        return Gst.PadProbeReturn.OK
    if not info.type & Gst.PadProbeType.BUFFER_LIST:
        return Gst.PadProbeReturn.DROP if chance.random() < share_lost[0] else Gst.PadProbeReturn.OK
    packets = info.get_buffer_list()
    for number in range(packets.length()):
        if chance.random() >= share_lost[0]:
            pad.get_peer().chain(packets.get(number))
    return Gst.PadProbeReturn.DROP


def mount(arguments: argparse.Namespace) -> GstRtspServer.RTSPMediaFactory:
    width, height = size = tuple(map(int, arguments.size.split("x")))

    def on_configure(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        ended = threading.Event()
        media.connect("unprepared", lambda _media: ended.set())
        sound = media.get_element().get_by_name("sound")
        if sound is not None:
            threading.Thread(target=push_sound, args=(sound, ended), daemon=True).start()
        if arguments.sound == "only":
            return
        source, packets = (media.get_element().get_by_name(name) for name in ("source", "pay0"))
        packets.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST, lose)
        threading.Thread(target=push_pictures, args=(source, size, arguments.fps, ended), daemon=True).start()

    factory = GstRtspServer.RTSPMediaFactory()
    pictures = (
        "appsrc name=source is-live=true do-timestamp=true format=time "
        f"caps=video/x-raw,format=GRAY8,width={width},height={height},framerate={arguments.fps}/1 "
        f"! videoconvert ! video/x-raw,format=I420 ! {ENCODERS[arguments.codec].format(gop=arguments.gop)}"
    )
    tracks = {"none": pictures, "too": f"{pictures} {SOUND}pay1", "only": f"{SOUND}pay0"}
    factory.set_launch(f"( {tracks[arguments.sound]} )")
    # What is shared is not to be had again (503) while it is taken down after a client that was refused.
    factory.set_shared(arguments.sound != "only")
    factory.connect("media-configure", on_configure)
    if arguments.user:
        permissions = GstRtspServer.RTSPPermissions()
        for what in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("watcher", what, True)
        factory.set_permissions(permissions)
    return factory


def gate(arguments: argparse.Namespace) -> GstRtspServer.RTSPAuth:
    """Ask everybody for the name and the password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "watcher")
    if arguments.auth == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(arguments.user, arguments.password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(arguments.user, arguments.password), token)
    return auth


def obey() -> None:
    for line in sys.stdin:
        word, *rest = line.split() or [""]
        if word == "freeze":
            frozen.set()
        elif word == "resume":
            frozen.clear()
        elif word == "loss":
            share_lost[0] = float(rest[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--gop", type=int, default=30)
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--mounts", default="cam")
    parser.add_argument("--sound", choices=("none", "too", "only"), default="none")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    arguments = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    if arguments.user:
        server.set_auth(gate(arguments))
    for name in arguments.mounts.split(","):
        server.get_mount_points().add_factory(f"/{name}", mount(arguments))
    if not server.attach(None):
        sys.exit(f"cannot listen on port {arguments.port}")
    print("ready", server.get_bound_port(), flush=True)
    threading.Thread(target=obey, daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
