"""The rooms of polyrot: each imports from those below it only, and none runs in a circle.

Every import counts, also inside of a function and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "polyrot"
FACE = "the public face"
ROOMS = (
    "defaults",
    "runtime",
    "measured",
    "maps",
    "store",
    "judge",
    "cohorts",
    "haar",
    "toy",
    "dictionaries",
    "language",
    "workshop",
    "streaming",
    "measures",
    "studies",
    "report",
    FACE,
)
"""From the ground up: a room imports from those before it."""
IN_FACE = ("", "cli", "__main__")
"""Modules of the public face: the package itself, and the command line."""
FORBIDDEN = ("pytest", "_pytest", "claims", "fixtures", "tests_unit", "conftest")


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the package below `root`, by its dotted name; of a folder's __init__.py the
    folder's."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports, dotted and absolute, and on which line. `from a import b` is a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def arrows_of(modules: Mapping[str, Path]) -> list[tuple[str, str, int]]:
    """Imports between modules: importing, imported, line."""
    found = []
    for name, path in modules.items():
        for target, line in imported(name, path):
            # A name that is no module is defined in the module before its last dot.
            known = target if target in modules else target.rpartition(".")[0]
            if known in modules and known != name:
                found.append((name, known, line))
    return found


def room_of(name: str) -> str:
    """The room of a module, or its first folder where that is none."""
    inside = name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]
    return FACE if inside in IN_FACE else inside


def homeless(modules: Collection[str]) -> list[str]:
    """Modules in no known room."""
    return [name for name in modules if room_of(name) not in ROOMS]


def upward(modules: Mapping[str, Path]) -> list[str]:
    """Imports from a room that is not below, one line each."""
    return [
        f"{name}:{line} ({room_of(name)}) imports {target} ({room_of(target)})"
        for name, target, line in arrows_of(modules)
        if room_of(name) != room_of(target)
        and ROOMS.index(room_of(name)) < ROOMS.index(room_of(target))
    ]


def circle(modules: Mapping[str, Path]) -> list[str]:
    """The modules of one circle of imports, or none."""
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, target, _ in arrows_of(modules):
        graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def outside(modules: Mapping[str, Path]) -> list[str]:
    """Imports of what the library must not know, one line each."""
    return [
        f"{name}:{line} imports {target}"
        for name, path in modules.items()
        for target, line in imported(name, path)
        if target.partition(".")[0] in FORBIDDEN
    ]


def formulas_of(claims: Path) -> list[str]:
    """The files that the docstring of a file of claims names after "Formulas:"."""
    text = ast.get_docstring(ast.parse(claims.read_text(encoding="utf-8"))) or ""
    _, _, listed = text.partition("Formulas:")
    return re.findall(r"[\w/]+\.py", listed)


def missing_formulas(claims: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the formulas that a file of claims names, one line each."""
    named, family = formulas_of(claims), claims.stem.removeprefix("test_")
    if not named:
        return [f"{claims.name}: its docstring names no file after 'Formulas:'"]
    problems = [
        f"{claims.name}: no file {file}"
        for file in named
        if not file.startswith(f"{PACKAGE}/") or not (root / file).is_file()
    ]
    answers = f"{PACKAGE}/measures/{family}"
    there = (root / f"{answers}.py").is_file() or (root / answers).is_dir()
    if there and not any(file.startswith((f"{answers}.py", f"{answers}/")) for file in named):
        problems.append(f"{claims.name}: names nothing of {answers}")
    return problems


# ------------------------------------------------------------------------------------ as it stands


MODULES = modules_of(ROOT)


def test_every_module_lies_in_a_known_room() -> None:
    assert homeless(MODULES) == []
    assert {room_of(name) for name in MODULES} == set(ROOMS), "a room without a module"


def test_a_room_imports_downward_only() -> None:
    assert upward(MODULES) == []


def test_no_circle_among_modules() -> None:
    assert circle(MODULES) == []


def test_the_library_knows_neither_tests_nor_claims() -> None:
    assert outside(MODULES) == []


@pytest.mark.parametrize(
    "claims", sorted((ROOT / "claims").glob("test_*.py")), ids=lambda path: path.stem
)
def test_claims_name_the_files_of_their_formulas(claims: Path) -> None:
    assert missing_formulas(claims) == []


# ------------------------------------------------------------------------------------ turning red


def planted(root: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """A package with a module `polyrot/maps/sums.py` and these files."""
    for file, text in {"maps/__init__.py": "", "maps/sums.py": "", **files}.items():
        path = root / PACKAGE / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return modules_of(root)


UPWARD = {
    "at the top": "from polyrot.maps import sums\n",
    "of a module": "import polyrot.maps.sums\n",
    "of a name": "from polyrot.maps.sums import total\n",
    "relative": "from ..maps import sums\n",
    "in a function": "def f():\n    from polyrot.maps import sums\n",
    "for types": "import typing\nif typing.TYPE_CHECKING:\n    import polyrot.maps.sums\n",
}


@pytest.mark.parametrize("text", UPWARD.values(), ids=UPWARD)
def test_an_upward_import_is_found(tmp_path: Path, text: str) -> None:
    made = planted(tmp_path, {"runtime/device.py": text})
    (found,) = upward(made)
    assert re.fullmatch(r"polyrot\.runtime\.device:\d \(runtime\) imports polyrot\.maps.*", found)
    assert upward(planted(tmp_path / "down", {"store/store.py": text})) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {
        "maps/a.py": "from polyrot.maps import b\n",
        "maps/b.py": "def f():\n    from polyrot.maps.a import x\n",
    }
    assert set(circle(planted(tmp_path, files))) == {"polyrot.maps.a", "polyrot.maps.b"}
    assert circle(planted(tmp_path / "none", {**files, "maps/b.py": ""})) == []


def test_an_import_of_tests_is_found(tmp_path: Path) -> None:
    text = "def f():\n    import pytest\n\nfrom fixtures.cohorts import SHIPPED\n"
    made = planted(tmp_path, {"runtime/device.py": text})
    assert sorted(outside(made)) == [
        "polyrot.runtime.device:2 imports pytest",
        "polyrot.runtime.device:4 imports fixtures.cohorts.SHIPPED",
    ]


def test_a_room_that_nobody_knows_is_found(tmp_path: Path) -> None:
    made = planted(tmp_path, {"attic/things.py": "", "checks.py": "", "cli.py": ""})
    assert homeless(made) == ["polyrot.attic.things", "polyrot.checks"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"""Sums."""', "names no file"),
        ('"""Formulas: polyrot/measures/sums.py, polyrot/maps/gone.py."""', "no file polyrot/maps"),
        ('"""Formulas: claims/test_sums.py, polyrot/measures/sums.py."""', "no file claims/test_s"),
        ('"""Formulas: polyrot/maps/sums.py."""', "names nothing of polyrot/measures/sums"),
        ('"""Formulas: polyrot/measures/sums.py,\npolyrot/maps/sums.py."""', ""),
    ],
)
def test_formulas_that_are_not_there_are_found(tmp_path: Path, text: str, problem: str) -> None:
    planted(tmp_path, {"measures/sums.py": ""})
    claims = tmp_path / "claims" / "test_sums.py"
    claims.parent.mkdir()
    claims.write_text(text, encoding="utf-8")
    found = missing_formulas(claims, tmp_path)
    assert (problem in found[0] and len(found) == 1) if problem else found == []


def test_a_stub_names_every_module_of_its_room() -> None:
    """Whoever writes `measures.cosine` gets what lies in the folder, and type checkers know it."""
    stubs = sorted((ROOT / PACKAGE).rglob("*/__init__.pyi"))
    assert len(stubs) > 9
    for stub in stubs:
        room = stub.parent
        named = {
            alias.name
            for node in ast.parse(stub.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and node.module is None
            for alias in node.names
        }
        modules = {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"}
        packages = {path.parent.name for path in room.glob("*/__init__.py")}
        assert named == modules | packages, room
