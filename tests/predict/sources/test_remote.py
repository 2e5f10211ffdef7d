"""Pictures by their address, from a server on the loopback interface."""

from __future__ import annotations

import json
import socket

import pytest

from fcos_cli.errors import DataError
from fcos_cli.predict.sources import remote
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.remote import connect
from fcos_cli.predict.sources.stop import Stop
from tests.cli_runner import Fcos, created_files
from tests.predict.sources.servers import content, http_server, jpeg


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def fetched(url: str) -> bytes:
    (frame,) = open_sources([url])
    return frame.data


def error_of(url: str) -> DataError:
    with pytest.raises(DataError) as caught:
        fetched(url)
    return caught.value


def with_login(url: str, path: str) -> str:
    return url.replace("http://", "http://alice:s3cret%21@") + path


def test_a_picture_is_fetched_whole():
    with http_server(a_jpg=content(jpeg(200))) as server:
        assert fetched(f"{server.url}a.jpg?size=big#x") == jpeg(200)
        assert server.requests == [("/a.jpg?size=big", None)]


def test_user_and_password_go_to_the_host_and_not_where_it_redirects():
    with http_server(a_jpg=content(jpeg(9))) as other:

        def redirect(handler):
            handler.start("text/plain", code=302, Location=f"{other.url}a.jpg")

        with http_server(go=redirect) as server:
            assert fetched(with_login(server.url, "go")) == jpeg(9)
            assert server.requests == [("/go", "Basic YWxpY2U6czNjcmV0IQ==")]
            assert other.requests == [("/a.jpg", None)]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.jpg", "gopher://127.0.0.1/"])
def test_redirects_leave_http_never(target):
    def redirect(handler):
        handler.start("image/jpeg", code=302, Location=target)

    with http_server(go=redirect) as server:
        error = error_of(with_login(server.url, "go"))
    assert "s3cret" not in str(error)


def test_errors_name_the_cause_and_not_the_password():
    def forbidden(handler):
        handler.start("text/html", code=403)

    with http_server(secret=forbidden) as server:
        missing, closed = error_of(with_login(server.url, "no.jpg?t0ken")), error_of(with_login(server.url, "secret"))
        url = server.url
    refused = error_of(with_login(url, "a.jpg"))
    assert missing.what == "the server answered 404 Not Found"
    assert (closed.what, closed.remedy[:22]) == ("the server answered 403 Forbidden", "give user and password")
    assert refused.what == "the server cannot be reached (Connection refused)"
    for error in (missing, closed, refused):
        assert not any(secret in str(error) for secret in ("alice", "s3cret", "t0ken"))
        assert error.__cause__ is None  # --debug prints causes


def test_a_server_without_https_is_an_error_that_says_so():
    with http_server(a_jpg=content(jpeg(1))) as server:
        error = error_of(server.url.replace("http:", "https:") + "a.jpg")
    assert "no secure connection" in error.what
    assert "http://" in error.remedy


def test_size_and_time_are_limited(monkeypatch):
    def endless(handler):
        handler.start("image/jpeg")
        while True:
            handler.wfile.write(b"x" * 10_000)

    with http_server(endless=endless) as server:
        monkeypatch.setattr(remote, "MAX_BYTES", 2_000_000)
        assert error_of(f"{server.url}endless").what == "the file has more than 2 MB"
        monkeypatch.setattr(remote, "MAX_BYTES", 10**12)
        monkeypatch.setattr(remote, "MAX_SECONDS", 0.05)
        assert "took longer than" in error_of(f"{server.url}endless").what


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = error_of(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")
    assert error.what == "the server cannot be reached (no answer within 0.1 s)"


def test_a_picture_that_ends_too_early_is_an_error():
    def half(handler):
        handler.start("image/jpeg", Content_Length="5000")
        handler.wfile.write(jpeg(1)[:100])

    with http_server(half=half) as server:
        assert "too early" in error_of(f"{server.url}half").what


def test_a_set_event_interrupts():
    stop = Stop()
    stop.set()
    with http_server(a_jpg=content(jpeg(1))) as server:
        answer = connect(Address(f"{server.url}a.jpg"))
        with pytest.raises(KeyboardInterrupt):
            answer.read(stop)
        answer.close()


def test_predict_reads_checks_and_names_them_without_secrets(fcos: Fcos, model_file):
    page = b"<!DOCTYPE html><html><title>Sorry</title></html>"
    with http_server(a_jpg=content(jpeg(200)), page=content(page, "text/html")) as server:
        sources = [with_login(server.url, name) for name in ("a.jpg?t0ken", "page", "none")]
        flags = ("--model", model_file, "--json", "--viz", "--save", "found.csv", "--save", "found.jsonl")
        result = fcos("predict", *sources, *flags)
        listed = server.url
    assert result.code == 1
    (found,) = result.document["results"]
    assert (found["source"], found["width"]) == (f"{listed}a.jpg?…", 64)
    assert [row["source"] for row in result.document["failed"]] == [f"{listed}page", f"{listed}none"]
    assert "HTML" in result.document["failed"][0]["error"] or "html" in result.document["failed"][0]["error"]
    assert [path.name for path in created_files()] == ["found.csv", "found.jsonl", "predictions", "a.jpg"]
    saved = "".join(path.read_text() for path in created_files() if path.suffix in (".csv", ".jsonl"))
    for text in (result.out, result.err, saved):
        assert not any(secret in text for secret in ("alice", "s3cret", "t0ken"))


def test_the_only_address_that_fails_is_exit_code_3_also_with_debug(fcos: Fcos, model_file):
    with http_server() as server:
        result = fcos("predict", with_login(server.url, "none.jpg?t0ken"), "--model", model_file)
    assert result.code == 3
    assert "404" in result.err
    assert not any(secret in result.err for secret in ("alice", "s3cret", "t0ken"))


def test_addresses_in_lists_are_not_fetched(fcos: Fcos, model_file, tmp_path):
    with http_server(a_jpg=content(jpeg(1))) as server:
        (tmp_path / "list.txt").write_text(with_login(server.url, "a.jpg") + "\n")
        result = fcos("predict", tmp_path / "list.txt", "--model", model_file, "--jsonl")
        assert server.requests == []
    assert result.code == 1
    assert json.loads(result.out)["error"] == "addresses in a list are not fetched"
    assert "s3cret" not in result.out + result.err


def test_a_long_address_is_not_taken_for_a_long_file_name(fcos: Fcos, model_file):
    with http_server(a_jpg=content(jpeg(1))) as server:
        result = fcos("predict", f"{server.url}a.jpg?{'t0ken' * 100}", "--model", model_file, "--json")
    assert result.code == 0, result.err
    assert "t0ken" not in result.out + result.err
