"""The package as users and Spark meet it: its names, its version, and the zip for --py-files."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import sparknn

ROOT = Path(__file__).resolve().parent.parent


def test_version_is_the_installed_one() -> None:
    assert version("sparknn") == sparknn.__version__


def test_public_names_are_listed() -> None:
    assert set(sparknn.__all__) <= set(dir(sparknn))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NeuralNet'"):
        _ = sparknn.NeuralNet


def test_without_pyspark_the_error_says_what_to_install(
    run_python: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    done = run_python(
        "import sys\n"
        "for name in ('pyspark', 'py4j', 'pandas', 'pyarrow'):\n"
        "    sys.modules[name] = None\n"
        "import sparknn\n"
        "from sparknn.cli import main\n"
        "try:\n"
        "    sparknn.NeuralNetClassifier\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "sys.exit(main(['predict', '--model', 'm', '--data', 'd', '--output', 'o']) - 1)"
    )
    for text in (done.stdout, done.stderr):
        assert "pip install 'sparknn[spark]'" in text


def test_zip_is_importable_and_holds_only_the_package(
    tmp_path: Path, run_python: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    built = subprocess.run(
        [sys.executable, ROOT / ".ci" / "build-zip", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(built.stdout.strip())
    assert path.parent == tmp_path
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "sparknn/py.typed" in names
    assert [name for name in names if not name.startswith("sparknn/")] == []
    assert [name for name in names if not name.endswith((".py", "py.typed"))] == []
    done = run_python(
        "import sys; sys.path.insert(0, sys.argv[1]); import sparknn.core; print(sparknn.__file__)",
        str(path),
    )
    assert done.stdout.startswith(str(path))
