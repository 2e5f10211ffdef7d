"""examples/serve.py, from another process: the answers of `fcos predict`, errors, load, and a graceful stop."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fcos_cli.runtime.open import open_detector
from tests.cli_runner import Fcos
from tests.runtime.onnx_files import FACTS, write_onnx

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

ROOT = Path(__file__).parent.parent
LIMIT = 400_000


class Answer(NamedTuple):
    code: int
    headers: dict[str, str]
    body: bytes


class Server(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, body: Any, kind: str = "image/png") -> Answer:
        return self.ask("POST", "/predict", body, Content_Type=kind)

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)


@contextmanager
def serving(model: Path, *flags: object) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "examples/serve.py", model, "--port", port, *flags]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    server = Server(process, port)
    try:
        for _ in range(600):
            try:
                assert server.ask("GET", "/health").body == b"ok\n"
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("served") / "small.onnx")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, "--queue", 3, "--max-bytes", LIMIT) as server:
        yield server


def picture(side: int = 64, format: str = "png", *, noise: bool = True) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256 if noise else 2, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def test_the_answer_is_the_document_of_predict(server: Server, model: Path, fcos: Fcos) -> None:
    photo = ROOT / "examples/photos/cat.jpg"
    answer = server.post(photo.read_bytes(), "image/jpeg")
    assert (answer.code, answer.headers["content-type"]) == (200, "application/json")
    known = fcos("predict", photo, "--model", model, "--json").document
    served = json.loads(answer.body)
    assert len(known["results"][0]["detections"]) == 3
    known["results"][0]["source"] = "request"
    assert served == {**known, "model": str(model)}


def test_the_content_type_is_not_case_sensitive(server: Server) -> None:
    assert server.post(picture(), "Image/PNG").code == 200


def test_a_port_that_is_taken_is_said_and_nothing_is_served(model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "examples/serve.py"), str(model), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()
    assert "serving" not in done.stderr


def test_tiles_are_as_of_predict_and_a_model_that_needs_them_hints_at_them(tmp_path: Path, fcos: Fcos) -> None:
    model = write_onnx(tmp_path / "tiled.onnx", facts=replace(FACTS, provenance={"tile": 128}))
    photo = ROOT / "examples/photos/cat.jpg"
    with serving(model) as server:
        assert "add --tile 128" in (server.process.stderr or io.StringIO()).readline()
    with serving(model, "--tile", 128) as server:
        assert "serving" in (server.process.stderr or io.StringIO()).readline()
        (served,) = json.loads(server.post(photo.read_bytes(), "image/jpeg").body)["results"]
    (known,) = fcos("predict", photo, "--model", model, "--tile", 128, "--json").document["results"]
    assert served["detections"] == known["detections"]
    assert len(known["detections"]) > 3


def test_an_unexpected_error_is_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    serve = importlib.import_module("serve")
    service = serve.Service(open_detector(model), score=None, tiling=None, queue=1, max_bytes=LIMIT)

    async def fail(_: object) -> None:
        raise RuntimeError

    service._answer = fail
    with pytest.raises(RuntimeError):
        asyncio.run(service.predict(None))
    assert service.answers == {500: 1}
    service.network.shutdown()


TOO_LARGE = b"\0" * 5_000_000  # more than a socket takes at once


@pytest.mark.parametrize(
    ("body", "kind", "code", "what"),
    [
        (b"", "image/png", 400, "empty"),
        (b"no picture", "image/jpeg", 400, "the file is text"),
        (picture()[:-200], "image/png", 400, "truncated or damaged"),
        (picture(), "text/html", 415, "text/html"),
        (picture(), "multipart/form-data; boundary=x", 415, "multipart/form-data"),
        (TOO_LARGE, "image/png", 413, "more than 400,000 bytes"),
        (iter([TOO_LARGE[:LIMIT], TOO_LARGE]), "image/png", 413, "more than 400,000 bytes"),  # without a length
    ],
    ids=["empty", "text", "truncated", "html", "form", "large", "large-in-chunks"],
)
def test_bad_input_is_a_4xx_that_says_why(server: Server, body: Any, kind: str, code: int, what: str) -> None:
    answer = server.post(body, kind)
    error = json.loads(answer.body)
    assert answer.code == code
    assert what in error["error"]
    assert error["remedy"]
    assert server.post(picture()).code == 200


def test_other_paths_and_methods(server: Server) -> None:
    assert server.ask("GET", "/predict").code == 405
    assert server.ask("POST", "/health").code == 405
    assert server.ask("GET", "/nothing").code == 404
    assert server.ask("GET", "/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def flood(server: Server, body: bytes, *, clients: int, each: int) -> Counter[int]:
    """Send pictures from several threads, again after 503. Returns how many answers had each code."""
    codes: Counter[int] = Counter()

    def work() -> None:
        for _ in range(each):
            while (answer := server.post(body)).code == 503:
                codes[503] += 1
                assert int(answer.headers["retry-after"]) >= 1
                time.sleep(0.02)
            codes[answer.code] += 1

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def test_under_load_every_request_is_answered_and_memory_stays(server: Server) -> None:
    body = picture(300)
    before = {code: server.metric(f'fcos_requests_total{{code="{code}"}}') for code in (200, 503)}
    flood(server, body, clients=8, each=4)
    resident = server.metric("process_resident_memory_bytes")
    codes = flood(server, body, clients=8, each=12) + Counter({200: 32})
    assert codes[200] == 8 * 16
    assert codes[503] > 0  # eight clients, and three places
    assert set(codes) == {200, 503}
    assert server.metric('fcos_requests_total{code="200"}') - before[200] == codes[200]
    assert server.metric('fcos_requests_total{code="503"}') - before[503] >= codes[503]
    assert server.metric("fcos_queue") == 0
    assert server.metric("process_resident_memory_bytes") < resident + 8e6


def test_after_sigterm_what_was_accepted_is_answered(model: Path) -> None:
    with serving(model, "--queue", 8) as server:
        body, codes = picture(900), list[int]()
        threads = [threading.Thread(target=lambda: codes.append(server.post(body).code)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while server.metric("fcos_queue") + server.metric("fcos_predict_seconds_count") < 6:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert codes == [200] * 6
        assert server.process.wait(timeout=60) == 0
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/health")


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("gone.onnx", 4, "there is no such model"),
        ("default --queue 0", 2, "--queue must be at least 1"),
        ("default --tile 7", 2, "tiles must be at least 32 pixels wide"),
    ],
)
def test_what_cannot_be_served_is_one_error(line: str, code: int, what: str) -> None:
    command = [sys.executable, ROOT / "examples/serve.py", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert what in done.stderr
    assert "Traceback" not in done.stderr
