"""Import rules of the package: only from higher to lower layers, no cycles, and a light command line."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcos_cli

ROOT = Path(fcos_cli.__file__).parent
LAYERS = (
    {"cli", "__main__", "commands", "api"},
    {"train"},
    {"bench", "explain", "export"},
    {"parity"},
    {"evaluate"},
    {"predict"},
    {"runtime"},
    {"data", "config"},
    {"convert"},
    {"model"},
    {"distributed", "console", "allocator", "atomic", "extras", "hardware", "resources", "threads"},
    {"errors"},
)
"""Top layer first. CONTRIBUTING.md describes the folders."""

MAX_FILES = 15
HEAVY = ("torch", "torchvision", "timm", "numpy", "PIL", "onnx", "onnxruntime", "tensorrt", "pydantic", "openvino")
HEAVY += ("ray", "pyarrow", "pandas")
FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int:
    """Return the layer of a module, 0 = top. Every module may import the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return len(LAYERS)
    return next(number for number, folders in enumerate(LAYERS) if parts[1] in folders)


def imports_of(code: str, package: str) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of every import statement in a file of `package`, also inside functions."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:  # `from fcos_cli.data import coco` imports a module too
                deeper = f"{base}.{alias.name}"
                yield (deeper if _is_module(deeper) else base), node.lineno


def _is_module(name: str) -> bool:
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def package_imports(file: Path) -> list[tuple[str, int]]:
    """Return (module, line) of every import of this package in one of its files."""
    package = ".".join(file.relative_to(ROOT.parent).parts[:-1])
    found = imports_of(file.read_text(encoding="utf-8"), package)
    return [(module, line) for module, line in found if module.split(".")[0] == "fcos_cli"]


def test_every_module_has_a_layer() -> None:
    names = {name_of(file).split(".")[1] for file in FILES if "." in name_of(file)} - {"assets"}
    assert names == set().union(*LAYERS)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_to_lower_layers_only(file: Path) -> None:
    if file == ROOT / "__init__.py":
        return  # its imports are for type checkers; public names are loaded lazily
    here = layer_of(name_of(file))
    upward = [f"{file}:{line} imports {module}" for module, line in package_imports(file) if layer_of(module) < here]
    assert upward == []


def test_no_import_cycles() -> None:
    graph = {name_of(file): {module for module, _ in package_imports(file)} for file in FILES if file.parent != ROOT}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_import_cycle_would_be_found() -> None:
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda path: path.name)
def test_folders_are_small_and_file_names_do_not_repeat_them(folder: Path) -> None:
    files = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= MAX_FILES
    assert not [name for name in files if name.startswith(f"{folder.name}_")], "a prefix repeats the folder's name"


def test_imports_in_functions_and_relative_imports_are_found() -> None:
    code = (
        "def f():\n    from fcos_cli.train import loop\n    from ..predict import pipeline\n    import fcos_cli.cli\n"
    )
    found = [module for module, _ in imports_of(code + "from . import cache\n", "fcos_cli.data")]
    assert sorted(found) == ["fcos_cli.cli", "fcos_cli.data.cache", "fcos_cli.predict.pipeline", "fcos_cli.train.loop"]
    cli, data, predict, train = (layer_of(module) for module in sorted(found))
    assert cli < train < predict < data


@pytest.mark.parametrize("file", [f for f in FILES if f.name == "__init__.py"], ids=name_of)
def test_packages_import_nothing_heavy(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    executed = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in executed]
    assert set(modules) <= {"__future__", "typing"}


def loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    """Return which of `names` are in sys.modules of a fresh process after running `code`."""
    report = f"\nimport sys\nprint(*(n for n in {names!r} if n in sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stderr.split()


def run_commands(*lines: str) -> str:
    """Code that runs `fcos` with each of these command lines in one process."""
    return f"""
import sys
from fcos_cli.cli import main
for line in {lines!r}:
    sys.argv = ["fcos", *line.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(run_commands("--version", "--help"), HEAVY) == []


def test_help_of_a_command_loads_nothing_heavy() -> None:
    code = run_commands(
        *(f"{command} --help" for command in ("train", "eval", "predict", "info", "doctor", "convert", "verify"))
    )
    # newer versions of Typer import pydantic
    assert loaded_after(code, tuple(name for name in HEAVY if name != "pydantic")) == []


def test_importing_the_package_is_light_and_offers_the_public_names() -> None:
    assert loaded_after("import fcos_cli; assert fcos_cli.__version__", (*HEAVY, "typer", "rich")) == []
    assert {"FCOS", "Detections", "api", "load", "__version__"} == set(fcos_cli.__all__)
    for name in fcos_cli.__all__:
        assert getattr(fcos_cli, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        fcos_cli.nonsense  # noqa: B018


def test_prediction_with_an_exported_model_needs_no_torch() -> None:
    folders = ("config", "data", "runtime", "predict", "evaluate")
    with_torch = ("data.training_set", "data.augment", "runtime.pytorch")
    names = [name_of(file) for file in FILES]
    modules = [name for name in names if name.split(".")[1:2] and name.split(".")[1] in folders]
    light = [name for name in modules if not name.startswith(tuple(f"fcos_cli.{part}" for part in with_torch))]
    assert len(light) > 40
    others = ("torch", "torchvision", "timm", "ray", "pyarrow")
    assert loaded_after("\n".join(f"import {name}" for name in light), others) == []


def test_info_loads_no_torch_unless_it_measures() -> None:
    heavy = ("torch", "torchvision", "timm", "onnxruntime")
    assert loaded_after(run_commands("info --json", "info nano --json"), heavy) == []
