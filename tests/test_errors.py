"""The exception tree: messages and exit codes."""

import pickle

import pytest

from fcos_cli import errors
from fcos_cli.errors import DataError, FcosError, MissingExtra, first_line, one_line, unknown_name

CODES = {
    "FcosError": 1,
    "UsageError": 2,
    "DataError": 3,
    "ModelError": 4,
    "ParityError": 5,
    "GateError": 6,
    "MissingExtra": 2,
    "Interrupted": 130,
    "Stopped": 143,
}


def test_error_has_what_where_and_remedy() -> None:
    error = DataError("box has no area", where="val.json:7", remedy="run fcos doctor")
    assert str(error) == "box has no area\nwhere: val.json:7\nremedy: run fcos doctor"
    assert error.args == ("box has no area",)


def test_missing_parts_are_omitted() -> None:
    assert str(FcosError("it broke")) == "it broke"
    assert str(FcosError("it broke", remedy="fix it")) == "it broke\nremedy: fix it"


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, FcosError)
    assert kind.exit_code == code


@pytest.mark.parametrize("name", CODES)
def test_errors_travel_to_other_processes(name: str) -> None:
    options = {"extra": "train"} if name == "MissingExtra" else {"remedy": "fix it"}
    error = getattr(errors, name)("it broke", where="here", **options)
    error.shared = True
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.args, copy.shared) == (type(error), str(error), ("it broke",), True)


def test_exit_code_tables_are_complete() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FcosError)}
    assert kinds == CODES.keys()
    for name, code in CODES.items():
        assert any(line.split()[-1:] and name in line and str(code) in line for line in errors.__doc__.splitlines())


def test_missing_extra_names_the_package_to_install() -> None:
    error = MissingExtra("no video reader", extra="video")
    assert error.remedy == 'pip install "fcos-cli[video]"'
    error = MissingExtra("no reader", extra="train", where="best.safetensors", instead="use best.onnx")
    assert (error.where, error.remedy) == ("best.safetensors", 'pip install "fcos-cli[train]", or use best.onnx')


def test_an_unknown_name_gets_the_nearest_one_or_the_first_few() -> None:
    names = ["RBC", "WBC", "Platelets"]
    assert unknown_name("class", "Platlets", names, where="--require").remedy == "did you mean Platelets?"
    assert unknown_name("class", "rbc", names, where="--require").remedy == "did you mean RBC?"
    assert unknown_name("class", "zebra", names, where="--require").remedy == "use one of RBC, WBC, Platelets"
    many = unknown_name("class", "zebra", (f"{n:03d}" for n in range(20)), where="--require")
    assert str(many.remedy).endswith("010, 011, …")
    assert (many.what, many.where, many.exit_code) == ("unknown class 'zebra'", "--require", 2)


def test_errors_of_libraries_are_quoted_in_one_line() -> None:
    error = RuntimeError("\n  no kernel\n\tfor this  layer\n")
    assert (one_line(error), first_line(error)) == ("no kernel for this layer", "no kernel")
    assert one_line(error, most=4) == "no k"
    assert one_line(MemoryError()) == first_line(MemoryError("\n")) == "MemoryError"  # Python's own says nothing


def test_an_error_in_brief_is_one_line() -> None:
    assert FcosError("it broke", where="here", remedy="fix it").brief == "it broke: here"
    assert FcosError("it broke", remedy="fix it").brief == "it broke"
    assert FcosError("it broke", where="here", details=["a", "b"]).brief == "it broke: here"


def test_details_are_all_kept() -> None:
    names = tuple(f"tensor {number}" for number in range(1000))
    error = pickle.loads(pickle.dumps(FcosError("it broke", where="here", remedy="fix it", details=names)))
    assert error.details == names
    assert str(error).splitlines()[1:-1] == ["where: here", *(f"  {name}" for name in names)]
