"""YOLO data sets that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.hostile.contract import READ, Case

ROW, YAML = "0 0.5 0.5 0.2 0.4\n", "names: [cat]\ntrain: images\n"
MALFORMED, UNKNOWN = "malformed-row", "unknown-category"


def data_set(folder: Path, *, yaml: str | bytes = YAML, label: str | bytes = ROW) -> Path:
    """One picture of 100 × 50 with this label file, and a data.yaml, whose path is returned."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("RGB", (100, 50)).save(folder / "images/a.png")
    for name, content in (("labels/a.txt", label), ("data.yaml", yaml)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "data.yaml"


def label(content: str | bytes | Callable[[], str]) -> Callable[[Path], Path]:
    return lambda folder: data_set(folder, label=content() if callable(content) else content)


def yaml(content: str | bytes | Callable[[], str]) -> Callable[[Path], Path]:
    return lambda folder: data_set(folder, yaml=content() if callable(content) else content)


def listed(line: str) -> Callable[[Path], Path]:
    """The train split is a list with this line, and the picture."""

    def make(folder: Path) -> Path:
        (folder / "list.txt").write_text(f"{line}\nimages/a.png\n", encoding="utf-8")
        return data_set(folder, yaml="names: [cat]\ntrain: list.txt\n")

    return make


def folder_for_label(folder: Path) -> Path:
    file = data_set(folder)
    (folder / "labels/a.txt").unlink()
    (folder / "labels/a.txt").mkdir()
    return file


def loop_for_label(folder: Path) -> Path:
    file = data_set(folder)
    (folder / "labels/a.txt").unlink()
    (folder / "labels/a.txt").symlink_to("a.txt")
    return file


def loop_of_folders(folder: Path) -> Path:
    file = data_set(folder)
    (folder / "images/again").symlink_to(folder / "images", target_is_directory=True)
    return file


def folder_for_yaml(folder: Path) -> Path:
    data_set(folder).unlink()
    (folder / "data.yaml").mkdir()
    (folder / "classes.txt").write_text("cat\n", encoding="utf-8")
    return folder


def darknet(content: str, *, names: str = "cat\n") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        data_set(folder).unlink()
        (folder / "obj.data").write_text(content, encoding="utf-8")
        (folder / "obj.names").write_text(names, encoding="utf-8")
        return folder

    return make


def bomb(use: str) -> str:
    """Nine levels of nine references each: 387 million values if anybody wrote them out."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(levels) + f"\n{use}\n"


YOLO = [
    Case("yolo-nan", label("0 nan 0.5 0.2 0.4\n"), "non-finite-box"),
    Case("yolo-infinity", label("0 0.5 inf 0.2 0.4\n"), "non-finite-box"),
    Case("yolo-1e400", label("0 0.5 0.5 1e400 0.4\n"), "non-finite-box"),
    Case("yolo-negative-size", label("0 0.5 0.5 -0.2 -0.4\n"), "degenerate-box"),
    Case("yolo-far-outside", label("0 9e9 9e9 0.2 0.4\n"), "box-outside"),
    Case("yolo-words", label("cat 0.5 0.5 0.2 0.4\n"), MALFORMED),
    Case("yolo-hexadecimal", label("0x0 0.5 0.5 0.2 0.4\n"), MALFORMED),
    Case("yolo-3-columns", label("0 0.5 0.5\n"), MALFORMED),
    Case("yolo-6-columns", label("0 1 2 3 4 5\n"), MALFORMED),
    Case("yolo-class-infinite", label("inf 0.5 0.5 0.2 0.4\n"), UNKNOWN),
    Case("yolo-class-nan", label("nan 0.5 0.5 0.2 0.4\n"), UNKNOWN),
    Case("yolo-class-a-half", label("0.5 0.5 0.5 0.2 0.4\n"), UNKNOWN),
    Case("yolo-class-negative", label("-1 0.5 0.5 0.2 0.4\n"), UNKNOWN),
    Case("yolo-class-of-5000-digits", label("9" * 5000 + " 0.5 0.5 0.2 0.4\n"), UNKNOWN),
    Case("yolo-label-empty", label(""), READ),
    Case("yolo-label-byte-order-mark", label(b"\xef\xbb\xbf" + ROW.encode()), READ),
    Case("yolo-label-crlf", label(ROW.replace("\n", "\r\n")), READ),
    Case("yolo-label-latin-1", label(b"\xe9\xe8 0.5\n"), MALFORMED),
    Case("yolo-label-zero-bytes", label(bytes(1000)), MALFORMED),
    Case("yolo-label-of-5-mb-in-a-line", label(lambda: "0 " + "0.5 " * 1_250_000), "degenerate-box"),
    Case("yolo-label-of-100000-rows", label(lambda: ROW * 100_000), "duplicate-box"),
    Case("yolo-label-is-a-folder", folder_for_label, "folder|cannot be read"),
    Case("yolo-label-is-a-link-to-itself", loop_for_label, "cannot be read"),
    Case("yolo-folders-in-a-circle", loop_of_folders, READ),
    Case("yolo-yaml-is-a-folder", folder_for_yaml, READ),
    Case("yolo-yaml-empty", yaml(""), "not a YOLO data set"),
    Case("yolo-yaml-list", yaml("[1, 2]"), "not a YOLO data set"),
    Case("yolo-yaml-number", yaml("3"), "not a YOLO data set"),
    Case("yolo-yaml-open-bracket", yaml("names: [cat\ntrain: images\n"), "not valid YAML"),
    Case("yolo-yaml-tabs", yaml("names:\n\t- cat\ntrain: images\n"), "not valid YAML"),
    Case("yolo-yaml-control-characters", yaml("names: [a\x00\x07]\ntrain: images\n"), "not valid YAML"),
    Case("yolo-yaml-latin-1", yaml(b"names: [ca\xe9]\ntrain: images\n"), "not valid YAML"),
    Case("yolo-yaml-utf-16", yaml(YAML.encode("utf-16")), "not valid YAML"),
    Case("yolo-yaml-byte-order-mark", yaml(b"\xef\xbb\xbf" + YAML.encode()), READ),
    Case("yolo-yaml-crlf", yaml(YAML.replace("\n", "\r\n")), READ),
    Case("yolo-yaml-100000-levels", yaml(lambda: "names: " + "[" * 100_000 + "\ntrain: images\n"), "not valid YAML"),
    Case("yolo-yaml-of-20-mb", yaml(lambda: YAML + "# comment\n" * 2_000_000), "larger than"),
    Case("yolo-yaml-bomb-in-names", yaml(bomb("names: *a8\ntrain: images")), "names"),
    Case("yolo-yaml-bomb-in-train", yaml(bomb("names: [cat]\ntrain: *a8")), "train"),
    Case("yolo-yaml-bomb-in-path", yaml(bomb("names: [cat]\ntrain: images\npath: *a8")), "path"),
    Case("yolo-yaml-bomb-in-nc", yaml(bomb("names: [cat]\ntrain: images\nnc: *a8")), "nc"),
    Case("yolo-yaml-bomb-unused", yaml(bomb(YAML)), READ),
    Case("yolo-yaml-contains-itself", yaml("names: &a [*a]\ntrain: images\n"), "names"),
    Case("yolo-yaml-runs-a-command", yaml("names: !!python/object/apply:os.system [touch ran]\ntrain: images\n"), READ),
    Case("yolo-yaml-opens-a-file", yaml("names: [!!python/object/apply:open [ran, w]]\ntrain: images\n"), "names"),
    Case("yolo-names-text", yaml("names: cat\ntrain: images\n"), "no classes"),
    Case("yolo-names-of-tables", yaml("names: [{a: b}]\ntrain: images\n"), "names"),
    Case("yolo-names-with-words-as-keys", yaml("names: {cat: 0}\ntrain: images\n"), "not a number"),
    Case("yolo-names-twice", yaml("names: [cat, cat]\ntrain: images\n"), "duplicate name"),
    Case("yolo-names-key-of-5000-digits", yaml(f"names: {{{'9' * 5000}: cat}}\ntrain: images\n"), "not valid YAML"),
    Case("yolo-names-key-beyond-64-bits", yaml(f"names: {{{2**70}: cat}}\ntrain: images\n"), "not a number"),
    Case("yolo-no-names", yaml("train: images\n"), "no classes"),
    Case("yolo-nc-wrong", yaml("nc: 1e999\n" + YAML), "`nc` says"),
    Case("yolo-train-missing", yaml("names: [cat]\n"), "lists no images"),
    Case("yolo-train-table", yaml("names: [cat]\ntrain: {a: b}\n"), "train"),
    Case("yolo-train-is-the-file-system", yaml(f"names: [cat]\ntrain: {'../' * 40}\n"), "whole file system"),
    Case("yolo-train-nowhere", yaml("names: [cat]\ntrain: ../../nowhere\n"), "not at the path"),
    Case("yolo-train-long", yaml(f"names: [cat]\ntrain: {'a' * 10_000}\n"), "not at the path"),
    Case("yolo-train-nul", yaml('names: [cat]\ntrain: "a\\0b"\n'), "not at the path"),
    Case("yolo-path-escapes", yaml(f"path: {'../' * 40}\n{YAML}"), READ),
    Case("yolo-list-escapes", listed("../" * 40 + "etc/passwd"), "unreadable-image"),
    Case("yolo-list-long", listed("a" * 10_000 + "/b.png"), "missing-image"),
    Case("yolo-list-nul", listed("a\0/b.png"), "missing-image"),
    Case("yolo-darknet-names-is-a-folder", darknet("names = images\ntrain = images\n"), "folder|cannot be read"),
    Case("yolo-darknet-names-missing", darknet("names = no.names\ntrain = images\n"), "does not exist"),
    Case("yolo-darknet-names-empty", darknet("train = images\n", names=""), "no classes"),
    Case("yolo-darknet-empty", darknet("\0\0\0"), "lists no images"),
]
