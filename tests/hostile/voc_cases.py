"""Pascal VOC files that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.hostile.contract import READ, Case

SIZE = "<size><width>100</width><height>50</height></size>"
MALFORMED, XML = "malformed-row", "not valid XML"


def bndbox(x1: str = "11", y1: str = "21", x2: str = "30", y2: str = "40") -> str:
    return f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"


def polygon(*sides: str) -> str:
    return f"<polygon>{''.join(f'<pt><x>{side}</x><y>{side}</y></pt>' for side in sides)}</polygon>"


def thing(box: str = bndbox(), *, name: str = "dog", more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{box}</object>"


def annotation(inside: str = thing(), *, size: str = SIZE, file: str = "a.png", before: str = "") -> str:
    return f"{before}<annotation><filename>{file}</filename>{size}{inside}</annotation>"


def raw(content: str | bytes | Callable[[], str]) -> Callable[[Path], Path]:
    """An XML file with this content for a picture of 100 × 50; the folder is returned."""

    def make(folder: Path) -> Path:
        for name in ("JPEGImages", "Annotations"):
            (folder / name).mkdir()
        Image.new("RGB", (100, 50)).save(folder / "JPEGImages/a.png")
        given = content() if callable(content) else content
        (folder / "Annotations/a.xml").write_bytes(given if isinstance(given, bytes) else given.encode())
        return folder

    return make


def box(*corners: str) -> Callable[[Path], Path]:
    return raw(annotation(thing(bndbox(*corners))))


def size(width: str, height: str = "50") -> Callable[[Path], Path]:
    return raw(annotation(size=f"<size><width>{width}</width><height>{height}</height></size>"))


def listed(line: str) -> Callable[[Path], Path]:
    """The train split lists this and the picture."""

    def make(folder: Path) -> Path:
        raw(annotation())(folder)
        (folder / "ImageSets/Main").mkdir(parents=True)
        (folder / "ImageSets/Main/train.txt").write_text(f"{line}\na\n", encoding="utf-8")
        return folder

    return make


def folder_for_xml(folder: Path) -> Path:
    raw(annotation())(folder)
    (folder / "Annotations/b.xml").mkdir()
    return folder


def loop_for_xml(folder: Path) -> Path:
    raw(annotation())(folder)
    (folder / "Annotations/b.xml").symlink_to("b.xml")
    return folder


def entities(*, levels: int, width: int) -> str:
    """Billion laughs: each entity is `width` times the one before."""
    rows = ['<!ENTITY e0 "lol">', *(f'<!ENTITY e{n} "{f"&e{n - 1};" * width}">' for n in range(1, levels))]
    return annotation(thing(name=f"&e{levels - 1};"), before=f"<!DOCTYPE annotation [{''.join(rows)}]>")


def quadratic() -> str:
    """One long entity, used many times."""
    rows = f'<!DOCTYPE annotation [<!ENTITY e "{"x" * 100_000}">]>'
    return annotation(thing(name="&e;" * 20_000), before=rows)


def external(place: str) -> str:
    return annotation(thing(name="&e;"), before=f'<!DOCTYPE annotation [<!ENTITY e SYSTEM "{place}">]>')


def parameter(place: str) -> str:
    return annotation(before=f'<!DOCTYPE annotation [<!ENTITY % e SYSTEM "{place}"> %e;]>')


def many_objects(count: int) -> str:
    rows = (thing(bndbox(str(1 + n % 60), "3", str(70 + n % 20), str(9 + n / 4000))) for n in range(count))
    return annotation("".join(rows))


VOC = [
    Case("voc-nan", box("nan"), "non-finite-box"),
    Case("voc-infinity", box("1", "1", "inf"), "non-finite-box"),
    Case("voc-1e400", box("1", "1", "1e400"), "non-finite-box"),
    Case("voc-negative-size", box("30", "40", "11", "21"), "degenerate-box"),
    Case("voc-far-outside", box("1e12", "1e12", "2e12", "2e12"), "box-outside"),
    Case("voc-words", box("left"), MALFORMED),
    Case("voc-corner-empty", box(""), MALFORMED),
    Case("voc-corner-with-markup", box("<b>11</b>"), MALFORMED),
    Case("voc-polygon-nan", raw(annotation(thing(polygon("nan", "9")))), "non-finite-box"),
    Case("voc-polygon-of-a-point", raw(annotation(thing(polygon("9")))), "degenerate-box"),
    Case("voc-polygon-of-words", raw(annotation(thing(polygon("left")))), MALFORMED),
    Case("voc-no-bndbox", raw(annotation(thing(""))), MALFORMED),
    Case("voc-no-name", raw(annotation(thing(name="") + thing())), "malformed-row"),
    Case("voc-no-objects", raw(annotation("")), "no classes"),
    Case("voc-name-of-1-mb", raw(lambda: annotation(thing(name="x" * 1_000_000))), READ),
    Case("voc-difficult-unclear", raw(annotation(thing(more="<difficult>9</difficult>"))), "unclear-flag"),
    Case("voc-width-words", size("wide"), READ),
    Case("voc-width-negative", size("-100"), READ),
    Case("voc-width-of-400-digits", size("9" * 400), READ),
    Case("voc-width-of-5000-digits", size("9" * 5000), READ),
    Case("voc-no-size", raw(annotation(size="")), READ),
    Case("voc-file-name-escapes", raw(annotation(file="../" * 40 + "etc/passwd")), READ),
    Case("voc-file-name-long", raw(annotation(file="a" * 10_000)), READ),
    Case("voc-list-escapes", listed("../" * 40 + "etc/passwd"), "missing-image"),
    Case("voc-list-long", listed("a" * 10_000), "missing-image"),
    Case("voc-list-nul", listed("a\0b"), "missing-image"),
    Case("voc-xml-is-a-folder", folder_for_xml, READ),
    Case("voc-xml-is-a-link-to-itself", loop_for_xml, READ),
    Case("voc-cut", raw(annotation()[:120]), XML),
    Case("voc-two-documents", raw(annotation() + annotation()), XML),
    Case("voc-zero-bytes", raw(bytes(1000)), XML),
    Case("voc-empty", raw(""), XML),
    Case("voc-html", raw("<html><body>not found</body></html>"), "no classes"),
    Case("voc-attribute-twice", raw(annotation(before="").replace("<object>", "<object a='1' a='2'>")), XML),
    Case("voc-byte-order-mark", raw(b"\xef\xbb\xbf" + annotation().encode()), READ),
    Case("voc-crlf", raw(annotation().replace("><", ">\r\n<")), READ),
    Case("voc-utf-16", raw(annotation().encode("utf-16")), READ),
    Case("voc-latin-1-undeclared", raw(annotation(thing(name="caf\xe9")).encode("latin-1")), XML),
    Case("voc-encoding-unknown", raw(annotation(before='<?xml version="1.0" encoding="klingon"?>')), XML),
    Case("voc-encoding-utf-7", raw(annotation(before='<?xml version="1.0" encoding="utf-7"?>')), XML),
    Case("voc-style-sheet", raw(annotation(before='<?xml-stylesheet href="http://localhost:9/x"?>')), READ),
    Case("voc-billion-laughs", raw(entities(levels=10, width=10)), XML),
    Case("voc-entities-of-themselves", raw(annotation(before='<!DOCTYPE a [<!ENTITY e "&e;">]>', file="&e;")), XML),
    Case("voc-quadratic", raw(quadratic), XML),
    Case("voc-entity-of-a-file", raw(external("file:///etc/passwd")), XML),
    Case("voc-entity-of-a-server", raw(external("http://localhost:9/x")), XML),
    Case("voc-parameter-of-a-server", raw(parameter("http://localhost:9/x.dtd")), READ),
    Case("voc-100000-levels", raw(lambda: "<a>" * 100_000 + "</a>" * 100_000), "no classes|" + XML),
    Case(
        "voc-100000-levels-in-an-object", raw(lambda: annotation(thing(more="<a>" * 100_000 + "</a>" * 100_000))), READ
    ),
    Case("voc-30000-objects", raw(lambda: many_objects(30_000)), READ),
]
