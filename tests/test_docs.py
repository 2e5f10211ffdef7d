"""The documentation: every link leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "fcos_cli/**/*.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts
)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"]({page.name})" not in index]
    assert missing == ["index.md"]


def test_scripts_that_the_pages_name_exist() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = {name for text in texts for name in re.findall(r"python (?:-m )?((?:examples|tests)[\w./]*\w)", text)}
    files = [ROOT / (name if name.endswith(".py") else f"{name.replace('.', '/')}.py") for name in found]
    assert len(files) > 5
    assert [str(file) for file in files if not file.is_file()] == []
