"""Recognize files that no decoder here reads, by their first bytes."""

from __future__ import annotations

import re

HEAD = 512
"""Bytes that `describe` needs."""

_CONVERT = "convert it to JPEG or PNG"
_DEVELOP = "develop it and save it as JPEG or TIFF"
_DOWNLOAD = "the download failed: open the file in a text editor to see why, and download it again"
_RENAME = "give it the suffix of its format, for example .mp4"

UNREAD_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "convert to JPEG"),
    **dict.fromkeys((".jxl", ".jxr", ".psd", ".exr", ".tga", ".ico", ".svg", ".dcm"), "convert to JPEG or PNG"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"),
        "develop and save as JPEG",
    ),
}
"""Suffix of pictures that cannot be read → what to do with them."""

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the image itself", "run `git lfs pull` in its repository"),
    (rb"/annex/objects/", "a git-annex pointer, not the image itself", "run `git annex get` in its repository"),
    (rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", "a web page (HTML)", _DOWNLOAD),
    (rb"\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)?(<!doctype svg.*?>\s*)?<svg\b", "an SVG drawing", _CONVERT),
    (rb"\s*<\?xml\b", "an XML document", _DOWNLOAD),
    (rb"\s*[\[{]\s*[\"{\[]", "JSON text", _DOWNLOAD),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC (HEIF) picture", "convert it to JPEG"),
    (rb"....ftypcrx ", "a camera raw file (CR3)", _DEVELOP),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba", "a video or audio file", _RENAME),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (rb"II\xbc\x01", "a JPEG XR picture", _CONVERT),
    (rb"8BPS", "a Photoshop document", _CONVERT),
    (rb"v/1\x01", "an OpenEXR picture", _CONVERT),
    (rb"#\?RADIANCE", "a Radiance HDR picture", _CONVERT),
    (rb"FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR", "a camera raw file", _DEVELOP),
    (rb".{128}DICM", "a DICOM file", _CONVERT),
    (rb"\x93NUMPY", "a numpy array", "save it with PIL.Image.fromarray(array).save(…)"),
    (rb"\0\0\x01\0", "an icon (ICO)", _CONVERT),
    (rb"%PDF", "a PDF document", "save its pages as images"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "a compressed archive", "unpack it"),
    (rb"(?!P[1-7fF]\s)[\t\r\n -~]+\Z", "text", _DOWNLOAD),
    (rb"\0\x05\x16\x07", "macOS metadata of another file (AppleDouble)", "remove it"),
)  # fmt: skip
"""Pattern of the first bytes, what the file is, and the remedy."""


def describe(head: bytes) -> tuple[str, str] | None:
    """Return what kind of file starts with `head`, with its article, and what to do; None if it is unknown.

    head: the first HEAD bytes of the file, or all if it has fewer.
    """
    text = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, what, remedy in _SIGNATURES:
        if re.match(pattern, text, re.DOTALL | re.IGNORECASE):
            return what, remedy
    return None
