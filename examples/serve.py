"""A small HTTP server for one detector: a picture in, JSON out.

    pip install "fcos-cli[serve]"
    python examples/serve.py best.onnx --port 8080
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://localhost:8080/predict

    POST /predict    the bytes of a picture as the body → the document that `fcos predict --json` prints
    GET  /health     200 while the server accepts pictures
    GET  /metrics    counts, times, waiting pictures and memory, as Prometheus reads them

Notable choices:
- At most `--queue` pictures are being received, waiting or in progress. Further requests are answered 503 with
Retry-After, and their bodies are discarded as they arrive, so memory does not grow with the load.
- Pictures go through the network one by one, since one alone keeps all cores busy.
- Errors of the client are a 4xx: 400 no readable picture, 408 too slow, 413 too large, 415 another content type.
- After SIGTERM or Ctrl-C no connection is accepted, and every picture already accepted is answered.
- It listens on this machine only, without TLS or user accounts: put a proxy in front of it, or use Triton, say.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import FcosError
from fcos_cli.predict.pipeline import Failure, predict
from fcos_cli.predict.run import hint_at_tiles
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.writers import open_writer
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.open import open_detector

SOURCE = Path("request")
"""The `source` in the answers."""
SLOWEST = 60.0
"""Seconds for the body of a request to arrive, and for the last answers after SIGTERM."""
DISCARDED = 100_000_000
"""Bytes of a refused body that are received all the same; then the connection is closed."""
TYPES = ("image/", "application/octet-stream")


class Refused(Exception):
    """A request that is answered with an error: its status code, what is wrong and what to do."""

    def __init__(self, code: int, what: str, remedy: str | None = None, **headers: str) -> None:
        super().__init__(what)
        self.code, self.what, self.remedy, self.headers = code, what, remedy, headers

    def response(self) -> Response:
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return JSONResponse({"error": self.what, "remedy": self.remedy}, self.code, headers)


class Service:
    """The endpoints around a detector.

    score: lowest score to report; None = the model's thresholds. tiling: also run on tiles; None = do not. queue:
    number of pictures being received, waiting or in progress. max_bytes: largest body.
    """

    def __init__(
        self, detector: Detector, *, score: float | None, tiling: Tiling | None, queue: int, max_bytes: int
    ) -> None:
        self.detector, self.tiling, self.queue, self.max_bytes = detector, tiling, queue, max_bytes
        self.thresholds = report_thresholds(detector.facts, score=score, chosen=None)
        self.network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self.present = 0
        self.answers: Counter[int] = Counter()
        self.seconds, self.detected = 0.0, 0

    def app(self) -> Starlette:
        routes = [
            ("/predict", self.predict, "POST"),
            ("/health", self.health, "GET"),
            ("/metrics", self.metrics, "GET"),
        ]
        return Starlette(routes=[Route(path, endpoint, methods=[method]) for path, endpoint, method in routes])

    async def predict(self, request: Request) -> Response:
        try:
            response = await self._answer(request)
        except Refused as refused:
            response = refused.response()
            await self._discard(request)
        except ClientDisconnect:
            response = Response(status_code=499)  # nginx's code for this; nobody reads it
        except Exception:
            self.answers[500] += 1  # which Starlette sends
            raise
        self.answers[response.status_code] += 1
        return response

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(self, _: Request) -> Response:
        answers = "".join(f'fcos_requests_total{{code="{code}"}} {n}\n' for code, n in sorted(self.answers.items()))
        text = f"""\
# TYPE fcos_requests_total counter
{answers}# TYPE fcos_predict_seconds summary
fcos_predict_seconds_sum {self.seconds:.6f}
fcos_predict_seconds_count {self.detected}
# TYPE fcos_queue gauge
fcos_queue {self.present}
# TYPE fcos_queue_limit gauge
fcos_queue_limit {self.queue}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes {memory()}
"""
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request) -> Response:
        if self.present >= self.queue:
            mean = self.seconds / max(self.detected, 1)
            wait = str(max(1, math.ceil(mean * self.present)))
            raise Refused(503, f"{self.present} pictures are waiting", f"try again in {wait} s", Retry_After=wait)
        self.present += 1
        try:
            self._check_header(request)
            picture = await self._receive(request)
            document = await asyncio.get_running_loop().run_in_executor(self.network, self._detect, picture)
        finally:
            self.present -= 1
        return Response(document, media_type="application/json")

    def _check_header(self, request: Request) -> None:
        kind = request.headers.get("content-type", TYPES[-1])
        if not kind.lower().startswith(TYPES):
            raise Refused(
                415, f"the content type is {kind[:80]}", "send the bytes of a picture as image/jpeg or image/…"
            )
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.max_bytes:
            raise self._too_large()

    async def _receive(self, request: Request) -> bytes:
        parts, size = [], 0
        try:
            async with asyncio.timeout(SLOWEST):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > self.max_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise Refused(408, f"the picture did not arrive within {SLOWEST:.0f} s") from None
        return b"".join(parts)

    async def _discard(self, request: Request) -> None:
        """Receive and discard the rest of a refused body: many clients read the answer only after sending it all."""
        size = 0
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: all of it was received
            async with asyncio.timeout(SLOWEST):
                async for part in request.stream():
                    size += len(part)
                    if size > DISCARDED:
                        return

    def _too_large(self) -> Refused:
        what = f"the picture has more than {self.max_bytes:,} bytes"
        return Refused(413, what, "shrink it, or start the server with a larger --max-bytes")

    def _detect(self, picture: bytes) -> str:
        """The JSON document of one picture. Runs in the network's thread."""
        started = perf_counter()
        try:
            frames = [Frame(SOURCE, picture)]
            (result,) = predict(self.detector, frames, threshold=self.thresholds, tiling=self.tiling)
        except FcosError as error:
            raise Refused(500, error.what, error.remedy) from error
        if isinstance(result, Failure):
            raise Refused(400, result.error.what, result.error.remedy)
        stream = io.StringIO()
        facts = self.detector.facts
        with open_writer(stream, classes=facts.classes, model=self.detector.name, format="json") as writer:
            writer.write(result)
        self.seconds += perf_counter() - started
        self.detected += 1
        return stream.getvalue()


def memory() -> int:
    """Bytes of this process in memory; 0 where the system does not report it as Linux does."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="default", help="as of fcos predict --model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--score", type=float, help="lowest score; default: the model's thresholds")
    parser.add_argument("--tile", type=int, help="also run on tiles of this many pixels, as of fcos predict")
    parser.add_argument("--queue", type=int, default=16, help="pictures that may wait or be in work")
    parser.add_argument("--max-bytes", type=int, default=20_000_000, help="largest picture file")
    options = parser.parse_args()
    if options.queue < 1:
        parser.error("--queue must be at least 1")
    keep_freed_memory()
    try:
        tiling = Tiling(options.tile) if options.tile is not None else None
        detector = open_detector(options.model, score=options.score)
    except FcosError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    hint_at_tiles(detector, tiling)
    service = Service(detector, score=options.score, tiling=tiling, queue=options.queue, max_bytes=options.max_bytes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again once everything is answered
    config = uvicorn.Config(
        service.app(),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=int(SLOWEST),
    )
    socket = config.bind_socket()  # ends the program if the port is taken
    port = socket.getsockname()[1]  # with --port 0, a free one
    print(f"serving {detector.name} on http://{options.host}:{port}", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):  # which uvicorn raises again, too
        uvicorn.Server(config).run(sockets=[socket])


if __name__ == "__main__":
    main()
