"""Job files: what is read from them, and that every mistake in one is named, at once."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknn import NeuralNetClassifier, NeuralNetRegressor
from sparknn.cli import keys
from sparknn.cli.errors import UsageError
from sparknn.cli.io import Source, Target
from sparknn.cli.jobfile import load_train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job_file(tmp_path: Path):
    """Write text to a job file and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "job.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def mistakes_in(path: str, *overrides: str) -> list[str]:
    """What is wrong with a job file; whether a model is kept is another test's."""
    try:
        load_train(path, ["output.model=m", *overrides])
    except UsageError as error:
        return error.mistakes
    return []


def test_a_full_file_is_read(job_file) -> None:
    text = """
        task = "regression"
        [data]
        train = "a.csv"
        options = { header = false, sep = ";" }
        features = ["x", "y"]
        label = "z"
        weight = "w"
        validationFraction = 0.1
        [training]
        maxIter = 3
        [output]
        model = "out/m"
        predictions = "out/p.csv"
        overwrite = true
        """
    more = ["training.maxIter=5", "network.hiddenLayers=[8, 4]", "network.activation=tanh"]
    more += ["data.test=b.csv", "data.options.sep=,", "averaging.shuffle=false"]
    job = load_train(job_file(text), more)
    options = {"header": "false", "sep": ",", "inferschema": "true"}
    assert job.sources() == {
        "data.train": Source("a.csv", "csv", options),
        "data.test": Source("b.csv", "csv", options),
    }
    net = job.estimator
    assert isinstance(net, NeuralNetRegressor)
    assert (net.getMaxIter(), net.getShuffle(), net.getWeightCol()) == (5, False, "w")
    assert (net.getHiddenLayers(), net.getActivation()) == ([8, 4], "tanh")
    assert job.targets() == {
        "output.model": Target("out/m", "model", overwrite=True),
        "output.predictions": Target("out/p.csv", "csv", overwrite=True),
    }


def test_defaults_are_those_of_spark(job_file) -> None:
    job = load_train(job_file('[data]\ntrain = "rows"\n[output]\nmodel = "m"'))
    assert isinstance(job.estimator, NeuralNetClassifier)
    assert (job.features, job.values["data.label"]) == (["features"], "label")
    assert job.sources() == {"data.train": Source("rows", "parquet", {})}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.maxIter", "--set training.maxIter: expected KEY=VALUE"),
        ("data.train.x=5", "--set data.train.x=5: train holds a value"),
        ("maxIter=5", "maxIter: unknown key; did you mean training.maxIter?"),
        ("data.train=", "data.train: expected text, got empty text."),
        ("task=classify", "task: expected one of classification, regression, got 'classify'; did"),
        ("data.features=[]", "data.features: expected a column's name or a list of different nam"),
        ("data.options=header", "data.options: expected a table of reader options"),
        ("output.overwrite=1", "output.overwrite: expected true or false, got 1."),
        ("output.predictions=p", "output.predictions: needs data.test"),
        ("trainig.maxIter=1", "trainig: unknown section; did you mean 'training'?"),
        ("training.stepsize=1", "training.stepsize: unknown key; did you mean 'stepSize'?"),
        ("averaging.averagingRate=1", "averaging.averagingRate: unknown key; it was removed: set"),
        ("training.qwerty=1", "training.qwerty: unknown key. `sparknn keys` lists them all."),
        ("training.patience=true", "training.patience = True; expected a whole number."),
        ("training.maxIter=0", "training.maxIter = 0; expected a number"),
        ("network.loss=huber", "network.loss: not for task = 'classification'"),
    ],
)
def test_a_mistake_is_named_with_its_key(override: str, expected: str, job_file) -> None:
    (mistake,) = mistakes_in(job_file('[data]\ntrain = "rows"'), override)
    assert mistake.startswith(expected)
    assert mistake[-1] in ".?"


def test_all_mistakes_are_named_at_once(job_file) -> None:
    path = job_file(
        """
        task = "clasification"
        [data]
        format = 3
        [network]
        hiddenLayers = [300, 0]
        dropout = 1.5
        [training]
        maxiter = 4
        stepSize = -1
        """
    )
    named = [mistake.split(":")[0].split(" ")[0] for mistake in mistakes_in(path)]
    assert sorted(named) == [
        "data.format",
        "data.train",
        "network.dropout",
        "network.hiddenLayers",
        "task",
        "training.maxiter",
        "training.stepSize",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        load_train(str(path))
    for content in (b"[data\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not valid TOML: "):
            load_train(str(path))


KEYS = [f"{section}.{name}".strip(".") for section, names in keys.TRAIN.items() for name in names]
WORDS = "true nan -inf 1e400 -1 0 1_0 [[]] [3,2] [1,'a',{}] {a=1} 2020-01-01 'auto' 'x' '../x'"
TEXTS = st.text(max_size=5) | st.sampled_from([*WORDS.split(), "9" * 5000, "[" * 2000, "'\\u0000'"])


@given(st.lists(st.tuples(st.sampled_from([*KEYS, "a.b.c", "data"]), TEXTS), max_size=4), TEXTS)
@settings(max_examples=150)
def test_whatever_a_file_holds_mistakes_are_all_that_is_raised(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, str]], text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.toml"
    path.write_text(text, encoding="utf-8")
    needed = ["task=classification", "data.train=t", "data.features=f", "data.label=y"]
    for start in ([], needed):
        overrides = [f"{key}={value}" for key, value in values]
        with contextlib.suppress(UsageError):
            load_train(str(path), [*start, "output.model=m", *overrides])
    assert {each.name for each in path.parent.glob("*.toml")} == {"hostile.toml"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.test=t", "output.predictionCol="], "output.predictionCol: is empty, but data.test"),
        (
            ["data.validationIndicator=v", "data.validationFraction=0.1"],
            "data.validationFraction = 0.1; not together with validationIndicatorCol = 'v'",
        ),
        (["training.patience=3"], "training.patience = 3; needs validation rows"),
        (["averaging.finalWeights=best"], "averaging.finalWeights = 'best'; needs validation rows"),
        (
            ["data.test=t", "output.predictions=p.svm"],
            "output.predictions: p.svm would be written",
        ),
    ],
)
def test_what_does_not_go_together(overrides: list[str], expected: str, job_file) -> None:
    (mistake,) = mistakes_in(job_file('[data]\ntrain = "rows"'), *overrides)
    assert mistake.startswith(expected)
    # A wrong Param hides no other mistake.
    assert len(mistakes_in(job_file('[data]\ntrain = "r"'), *overrides, "network.dropout=2")) == 2


def test_a_training_of_which_nothing_would_be_kept(job_file) -> None:
    with pytest.raises(UsageError, match=r"output\.model: missing"):
        load_train(job_file('[data]\ntrain = "rows"'))
    assert load_train(job_file('[data]\ntrain = "r"'), ["data.test=t"]).targets() == {}


@pytest.mark.parametrize("task", keys.TASKS)
def test_every_param_has_exactly_one_key(task: str) -> None:
    listed = [
        n for section in keys.TRAIN.values() for n, key in section.items() if key.type == "param"
    ]
    assert len(listed) == len(set(listed))
    assert {param.name for param in keys.new_estimator(task).params} <= keys.PARAM_KEYS.keys()
    assert all(any(keys.new_estimator(t).hasParam(name) for t in keys.TASKS) for name in listed)


def test_keys_are_listed_with_their_meaning_and_default() -> None:
    lines = list(keys.key_lines(keys.TRAIN))
    (max_iter,) = [line for line in lines if line.startswith("  maxIter:")]
    assert "rounds" in max_iter
    assert "Default 'auto'." in max_iter
    (loss,) = [line for line in lines if line.startswith("  loss:")]
    assert "Only regression." in loss
    assert all(f"[{section}]" in lines for section in keys.TRAIN if section)


def test_the_job_file_of_the_demo_is_right() -> None:
    job = load_train(str(ROOT / "conf" / "mnist.toml"))
    assert job.estimator.getHiddenLayers() == [300]
    assert job.targets() == {"output.model": Target("out/mnist/model", "model", overwrite=True)}
