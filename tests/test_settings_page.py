"""docs/settings.md describes every setting as the code does."""

from fcos_cli.config import Config, flatten
from tests.settings_page import PAGE, conventions, page, settings


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.settings_page"


def test_every_setting_is_on_it_with_a_meaning() -> None:
    rows = [*settings(), *(row._replace(key=f"model.conventions.{row.key}") for row in conventions())]
    assert {row.key for row in rows} == set(flatten(Config().model_dump()))
    assert [row.key for row in rows if not row.meaning] == []
