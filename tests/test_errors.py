"""The exception tree: three short parts, one exit code each."""

import pytest

from fcos_cli import errors
from fcos_cli.errors import DataError, FcosError, MissingExtra

CODES = {
    "FcosError": 1,
    "UsageError": 2,
    "DataError": 3,
    "ModelError": 4,
    "ParityError": 5,
    "MissingExtra": 1,
    "Interrupted": 130,
    "Stopped": 143,
}


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = DataError("box has no area", where="val.json:7", remedy="run fcos doctor")
    assert str(error) == "box has no area\nwhere: val.json:7\nremedy: run fcos doctor"
    assert error.args == ("box has no area",)


def test_parts_that_are_not_known_are_left_out() -> None:
    assert str(FcosError("it broke")) == "it broke"
    assert str(FcosError("it broke", remedy="mend it")) == "it broke\nremedy: mend it"


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_every_error_has_its_exit_code(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, FcosError)
    assert kind.exit_code == code


def test_the_table_above_and_the_docstring_are_complete() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FcosError)}
    assert kinds == CODES.keys()
    for name, code in CODES.items():
        assert any(line.split()[-1:] and name in line and str(code) in line for line in errors.__doc__.splitlines())


def test_a_missing_extra_says_what_to_install() -> None:
    error = MissingExtra("no video reader", extra="video")
    assert error.remedy == 'pip install "fcos-cli[video]"'
