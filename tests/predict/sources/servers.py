"""Servers on the loopback interface: pictures and streams over HTTP, and a small RTSP server."""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import numpy as np
from PIL import Image

BOUNDARY = "next"


def jpeg(red: int) -> bytes:
    """A picture of 64 × 48 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (red, 30, 30)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers a path with what `server.pages` has for it: a function that gets this handler."""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(404)
            return
        with suppress(OSError):  # the client may leave
            page(self)

    def log_message(self, *_: object) -> None: ...

    def start(self, kind: str, *, code: int = 200, **headers: str) -> None:
        """Send status and headers."""
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        self.send_response(code)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, content: bytes, kind: str, **headers: str) -> None:
        self.start(kind, Content_Length=str(len(content)), **headers)
        self.wfile.write(content)


Page = Callable[[Answers], None]


@contextmanager
def http_server(**pages: Page) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve `pages` by the name of their path, with `_` for `.`; `server.url` is its address, with a slash."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.pages = {f"/{name.replace('_', '.')}": page for name, page in pages.items()}
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def content(data: bytes, kind: str = "image/jpeg") -> Page:
    return lambda handler: handler.send(data, kind)


def mjpeg(count: int, *, pause: float = 0.01) -> Page:
    """A stream of pictures as web cameras send it: frame n has a red of 10 · (n % 20)."""

    def page(handler: Answers) -> None:
        handler.start(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        for n in range(count):
            picture = jpeg(10 * (n % 20))
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            handler.wfile.write(head.encode() + picture + b"\r\n")
            handler.wfile.flush()
            time.sleep(pause)

    return page


# --- RTSP (RFC 2326), enough for one client that wants RTP inside the connection ---


@contextmanager
def rtsp_server(frames: int, *, password: str | None = None) -> Iterator[str]:
    """Serve an H.264 stream of `frames` frames to each client; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, frames, password), daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"


def _accept(listener: socket.socket, frames: int, password: str | None) -> None:
    with suppress(OSError):  # the listener is closed
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_talk, args=(connection, frames, password), daemon=True).start()


SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=t\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:one\r\n"
)


def _talk(connection: socket.socket, frames: int, password: str | None) -> None:
    with connection, suppress(OSError):
        lines = connection.makefile("rb")
        while request := lines.readline().decode():
            method = request.split()[0]
            headers = dict(line.split(": ", 1) for line in iter(lambda: lines.readline().decode().strip(), ""))
            extra, body, status = "", "", "200 OK"
            if password is not None and not headers.get("Authorization", "").endswith(password):
                status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"\r\n'
            elif method == "DESCRIBE":
                body, extra = SDP, f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n"
            elif method == "SETUP":
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            connection.sendall(f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\n{extra}\r\n{body}".encode())
            if method == "PLAY" and status == "200 OK":
                _play(connection, frames)
                return


def _play(connection: socket.socket, frames: int) -> None:
    """Send RTP packets inside the connection. FFmpeg makes them: it sends them to a socket that is ours."""
    import av

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))
        packets.settimeout(0.05)
        target = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
        with av.open(target, "w", format="rtp") as container:
            stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.gop_size = 5
            for n in range(frames):
                image = np.full((48, 64, 3), 10 * (n % 20), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(stream.encode(frame))
                _forward(packets, connection)
                time.sleep(0.01)


def _forward(packets: socket.socket, connection: socket.socket) -> None:
    with suppress(TimeoutError):
        packet = packets.recv(65536)
        packets.setblocking(False)
        with suppress(BlockingIOError):
            while packet:
                if packet[1] & 0x7F == 96:  # RTP, not RTCP
                    connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                packet = packets.recv(65536)
    packets.settimeout(0.05)
