"""What the README shows is run as it stands there."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import sparknn
from sparknn.cli import main

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_pipeline_examples(spark: "SparkSession", tmp_path: Path) -> None:
    example, text = blocks("python")
    # Spark's working directory is fixed when it starts.
    example = example.replace('"out/model"', repr(str(tmp_path / "model")))
    rng = np.random.default_rng(0)
    rows = [
        (country, float(age), float(income), "yes" if income > 1000 * age else "no")
        for country, age, income in zip(
            rng.choice(["CH", "CN"], 400),
            rng.uniform(20, 60, 400),
            rng.uniform(0, 80_000, 400),
            strict=True,
        )
    ]
    train = spark.createDataFrame(rows, "country string, age double, income double, bought string")
    names = {"train": train, "test": train}
    exec(compile(example, "README.md", "exec"), names)
    right = names["predictions"].where("prediction = label").count()
    assert right / train.count() > 0.9
    assert len(names["history"]) == 20
    assert (tmp_path / "model" / "metadata").is_dir()

    good, bad = (np.array(words.split()) for words in ("good great fine", "bad poor dull"))
    rows = [
        (" ".join([*rng.choice(own, 2), *(f"w{n}" for n in rng.integers(0, 999, 20))]), label)
        for label in (0.0, 1.0)
        for own in [bad if label else good] * 200
    ]
    names["reviews"] = spark.createDataFrame(rows, "review string, label double")
    # Networks of all 2^18 hashes are test_sparse_features' subject; here it is the text of README.
    assert "HashingTF(" in text
    text = text.replace("HashingTF(", "HashingTF(numFeatures=1 << 12, ")
    exec(compile(text, "README.md", "exec"), names)
    predicted = names["model"].transform(names["reviews"])
    assert predicted.where("prediction = label").count() / len(rows) > 0.9
    assert names["model"].stages[-1].numFeatures == 1 << 12


def test_the_params_named_exist() -> None:
    table = README.split("## What to set first")[1].split("\n\n`NeuralNet")[0]
    named = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    names = [name for cell in named for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) > 10
    estimator = sparknn.NeuralNetClassifier()
    assert [name for name in names if not estimator.hasParam(name)] == []


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_the_commands_shown_are_understood(command: str, capsys: pytest.CaptureFixture) -> None:
    """Each option in the README is one that the command's help knows."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    (shown,) = [line for line in lines if line.startswith(f"sparknn {command} ")]
    assert main([command, "--help"]) == 0
    usage = capsys.readouterr().out
    assert [option for option in re.findall(r"--[\w-]+", shown) if option not in usage] == []


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_version_is_the_current_one() -> None:
    assert set(re.findall(r"sparknn-(\d+\.\d+\.\d+)", README)) == {sparknn.__version__}
