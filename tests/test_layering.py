"""Imports point down, cli -> ml -> engine -> core -> numpy, and have no cycles.

Methods such as ``toOnnx`` may import an integration, inside of them.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sparknn"

#: Inside core, what a folder may import of core's other folders.
ALLOWED_IN_CORE: dict[str, set[str]] = {"nn": set(), "data": {"nn"}, "training": {"nn", "data"}}

#: What a layer may import besides the standard library and itself, by leading dotted name.
ALLOWED = {
    "core": {"numpy"},
    "engine": {"numpy", "pandas", "pyarrow", "pyspark", "py4j", "sparknn.core"},
    "ml": {
        *("numpy", "pandas", "pyarrow", "pyspark", "matplotlib", "tqdm"),
        *("sparknn.core", "sparknn.engine", "sparknn.__version__"),
    },
    "cli": {
        *("numpy", "pandas", "pyarrow", "pyspark", "matplotlib", "tomli"),
        *("sparknn.core", "sparknn.engine", "sparknn.ml", "sparknn"),
    },
    "integrations": {"numpy", "onnx", "sparknn.core", "sparknn.__version__"},
    # Above all, as its users import it: sparknn.mlflow.
    "mlflow": {"numpy", "mlflow", "sparknn.core", "sparknn.ml", "sparknn"},
    # The package's own module: public names only, loaded on first use.
    "": {"sparknn.ml"},
}


def layer_of(path: Path) -> str:
    """``core`` for sparknn/core/network.py, ``cli`` for cli.py, cli/... and __main__.py."""
    first = path.relative_to(PACKAGE).parts[0]
    if first == "__init__.py":
        return ""
    return "cli" if first in {"cli.py", "__main__.py"} else first


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere in a module of ``package``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def module_of(path: Path) -> str:
    """``sparknn.core.nn`` for sparknn/core/nn/__init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(sources: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """The modules that each module imports, anywhere in it and under TYPE_CHECKING too.

    ``sources`` maps a module to its package and source. A name imported from a package is the
    submodule if there is one, otherwise the package's ``__init__``. Only ``sparknn.__version__``, a
    constant that ml may read (see ``ALLOWED``), does not count as an import of the package.
    """
    return {
        module: {
            target
            for _, name in imports(ast.parse(source), package)
            for target in [name if name in sources else name.rpartition(".")[0]]
            if target in sources and target != module and name != "sparknn.__version__"
        }
        for module, (package, source) in sources.items()
    }


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    reached = {module: set(targets) for module, targets in graph.items()}
    for via in graph:
        for targets in reached.values():
            if via in targets:
                targets |= reached[via]
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, groups))


def core_imports_up(source: str, module: str) -> list[str]:
    """What ``source``, of a folder of core, imports from a folder that it may not use."""
    folder = module.split(".")[2]
    others = {f"sparknn.core.{name}" for name in ALLOWED_IN_CORE.keys() - {folder}}
    allowed = {f"sparknn.core.{name}" for name in ALLOWED_IN_CORE[folder]}
    return [
        f"line {line}: core.{folder} imports {name}"
        for line, name in imports(ast.parse(source), module.rpartition(".")[0])
        if within(name, others) and not within(name, allowed)
    ]


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def upward_imports(source: str, layer: str, package: str) -> list[str]:
    """What ``source`` imports although its layer may not."""
    own, tree = {f"sparknn.{layer}"} if layer else {"sparknn"}, ast.parse(source)
    lazy = lazy_imports(tree)
    return [
        f"line {line}: {layer or 'sparknn'} imports {name}"
        for line, name in imports(tree, package)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not within(name, ALLOWED[layer] | own)
        and not (line in lazy and within(name, {"sparknn.integrations"}))
    ]


def lazy_imports(tree: ast.AST) -> set[int]:
    """Lines of the imports inside functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {line for function in functions for line, _ in imports(function, "")}


def rdd_uses(source: str) -> list[str]:
    """Where ``source`` reaches for an RDD: what the estimators leave to the engine."""
    tree = ast.parse(source)
    imported = [
        f"line {line}: imports {name}"
        for line, name in imports(tree, "sparknn.ml")
        if within(name, {"pyspark.rdd", "pyspark.RDD"})
    ]
    used = [
        f"line {node.lineno}: uses .{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"rdd", "_jrdd", "parallelize"}
    ]
    return imported + used


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources("."), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert upward_imports(path.read_text(encoding="utf-8"), layer_of(path), package) == []


def test_there_are_no_import_cycles() -> None:
    found = {
        module_of(path): (
            ".".join(path.relative_to(PACKAGE.parent).parent.parts),
            path.read_text(encoding="utf-8"),
        )
        for path in sources(".")
    }
    assert cycles(import_graph(found)) == []


def test_an_import_cycle_is_found() -> None:
    found = {
        "p": ("p", ""),
        "p.a": ("p", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B"),
        "p.b": ("p", "def f():\n    from . import c"),
        "p.c": ("p", "import p.a"),
        "p.d": ("p", "from p.a import A\nimport numpy"),
    }
    assert cycles(import_graph(found)) == [["p.a", "p.b", "p.c"]]


@pytest.mark.parametrize("path", sources("core/nn", "core/data", "core/training"), ids=name_of)
def test_imports_inside_core_point_down(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    assert core_imports_up(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("folder", "source", "n_found"),
    [
        ("nn", "from sparknn.core.data.rows import Rows", 1),
        ("nn", "from ..training import rounds", 1),
        ("data", "from sparknn.core.training.rounds import run", 1),
        ("data", "from sparknn.core.nn.losses import LOSSES\nfrom . import rows", 0),
        ("training", "from sparknn.core.data.rows import Rows\nfrom ..nn import losses", 0),
    ],
)
def test_a_wrong_import_inside_core_is_found(folder: str, source: str, n_found: int) -> None:
    assert len(core_imports_up(source, f"sparknn.core.{folder}.module")) == n_found


@pytest.mark.parametrize("path", sources("ml"), ids=name_of)
def test_estimators_use_no_rdd(path: Path) -> None:
    assert rdd_uses(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "import pyspark"),
        ("core", "def f():\n    from pyspark.sql import SparkSession"),
        ("core", "import pandas as pd"),
        ("core", "import mlflow"),
        ("core", "from sparknn.engine.interface import Engine"),
        ("core", "from ..engine import base"),
        ("core", "from .. import engine"),
        ("core", "from sparknn import ml"),
        ("core", "from sparknn import NeuralNetClassifier"),
        ("core", "import numpy_financial"),
        ("core", "from sparknn.integrations.onnx import save_onnx"),
        ("core", "def f():\n    import onnx"),
        ("integrations", "from sparknn.ml.model import NetworkModel"),
        ("core", "import importlib\nimportlib.import_module('pyspark.sql')"),
        ("engine", "from sparknn.ml.params import HasHiddenLayers"),
        ("engine", "import matplotlib"),
        ("engine", "def f():\n    import tqdm"),
        ("engine", "import sparknn.cli"),
        ("ml", "from sparknn.cli import main"),
        ("ml", "import torch"),
        ("ml", "from sparknn.mlflow import MlflowCallback"),
        ("cli", "import sklearn"),
        ("", "from pyspark.sql import SparkSession"),
    ],
)
def test_a_wrong_import_is_found(layer: str, source: str) -> None:
    package = f"sparknn.{layer}" if layer not in {"", "cli"} else "sparknn"
    assert len(upward_imports(source, layer, package)) == 1


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "import math\nimport numpy as np\nfrom numpy.typing import NDArray"),
        (
            "core",
            "from sparknn.core.nn.network import N\nfrom . import losses\nfrom .types import F",
        ),
        (
            "engine",
            "import pyspark\nfrom sparknn.core import rounds\nfrom ..core import total",
        ),
        ("core", "def f():\n    from sparknn.integrations.onnx import save_onnx"),
        ("ml", "from sparknn.engine.rdd import RddEngine\nfrom sparknn import __version__"),
        ("cli", "from sparknn import NeuralNetClassifier\nfrom sparknn.ml.params import x"),
    ],
)
def test_a_right_import_passes(layer: str, source: str) -> None:
    package = f"sparknn.{layer}" if layer != "cli" else "sparknn"
    assert upward_imports(source, layer, package) == []


@pytest.mark.parametrize(
    "source",
    [
        "data.rdd.map(f)",
        "from pyspark.rdd import RDD",
        "from pyspark import RDD",
        "import pyspark.rdd",
        "spark.sparkContext.parallelize([1])",
        "self._sc.parallelize([1])\nframe.rdd",
    ],
)
def test_an_rdd_is_found(source: str) -> None:
    assert rdd_uses(source)


def test_every_layer_has_a_rule() -> None:
    assert {layer_of(path) for path in sources(".")} <= ALLOWED.keys()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sparknn", ["pyspark", "py4j", "pandas", "pyarrow", "numpy"]),
        ("sparknn.core", ["pyspark", "py4j", "pandas", "pyarrow"]),
        ("sparknn.integrations", ["pyspark", "onnx"]),
    ],
)
def test_importing_stays_light(
    module: str, absent: list[str], run_python: Callable[..., object]
) -> None:
    """A fresh process that imports ``module`` and all of its folder loads none of ``absent``."""
    run_python(
        "import importlib, pkgutil, sys\n"
        "module = importlib.import_module(sys.argv[1])\n"
        "if module.__name__ != 'sparknn':\n"
        "    for found in pkgutil.walk_packages(module.__path__, module.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "loaded = [name for name in sys.argv[2:] if name in sys.modules]\n"
        "sys.exit(f'{module.__name__} loads {loaded}' if loaded else 0)",
        module,
        *absent,
    )
