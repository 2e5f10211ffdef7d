from __future__ import annotations

import pytest

from fcos_cli.errors import DataError
from fcos_cli.predict.sources.address import Address, is_address

SECRETS = ("alice", "s3cret", "t0ken", "fr4gment")


@pytest.mark.parametrize(
    ("url", "shown", "stem"),
    [
        ("http://host/a/photo.jpg", "http://host/a/photo.jpg", "photo"),
        ("https://alice:s3cret@host:8443/a.png?key=t0ken#fr4gment", "https://host:8443/a.png?…", "a"),
        ("rtsp://alice:s3cret@10.0.0.7/live", "rtsp://10.0.0.7/live", "live"),
        ("rtsp://alice:s3c@ret@10.0.0.7", "rtsp://10.0.0.7", "10.0.0.7"),
        ("http://host/", "http://host/", "host"),
        ("http://host:80/%2e%2e/%2fetc%2f..", "http://host:80/%2e%2e/%2fetc%2f..", "host-80"),
        ("http://[::1]:8080/v", "http://[::1]:8080/v", "v"),
        ("http://alice:s3cret@[::1/v?t0ken", "http://…", "1"),
        ("ftp://alice:s3cret@host/x.jpg", "ftp://host/x.jpg", "x"),
    ],
)
def test_as_text_it_has_no_secrets(url, shown, stem):
    address = Address(url)
    assert str(address) == shown
    texts = (str(address), repr(address), address.stem, address.suffix, str(DataError("x", where=address)))
    assert not [secret for secret in SECRETS for text in texts if secret in text]
    if "::1/v" not in url:
        assert address.stem == stem
    assert "/" not in address.stem
    assert not address.stem.startswith(".")


@pytest.mark.parametrize(
    "url", ["ftp://host/a", "http://", "file:///etc/passwd", "http://h:99999999/a", "http://[::1/v"]
)
def test_what_is_no_address_of_a_picture_or_stream_is_an_error(url):
    with pytest.raises(DataError, match="cannot be read"):
        Address(url).check()


@pytest.mark.parametrize("url", ["s3://bucket/a.jpg", "GS://bucket/folder/"])
def test_the_remedy_for_an_object_store_is_the_engine_that_reads_it(url):
    with pytest.raises(DataError) as caught:
        Address(url).check()
    assert caught.value.remedy == "add --engine ray, which reads s3:// and gs://"


def test_paths_and_patterns_are_no_addresses():
    assert is_address("HTTP://host/a.jpg")
    assert not any(map(is_address, ("a.jpg", "http:/host", "C:\\a.jpg", "dir/http://x", "*.jpg", "camera:0")))
