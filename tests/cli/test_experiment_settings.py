"""Experiment files: what they mean, and that every mistake in one is named, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sparknn.cli import main
from sparknn.cli.experiment.settings import Settings, load
from sparknn.cli.experiment.trials import local_work, params_of, trials
from sparknn.cli.mistakes import UsageError

ROOT = Path(__file__).resolve().parents[2]

_LEAST = """
[data]
train = "rows.parquet"
[arms.only]
[output]
folder = "out"
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """Load an experiment file of this text."""

    def load_text(text: str, *overrides: str) -> Settings:
        (tmp_path / "e.toml").write_text(text, encoding="utf-8")
        return load(str(tmp_path / "e.toml"), overrides)

    return load_text


def test_the_least_file_is_the_posters_protocol(read: Callable[..., Settings]) -> None:
    settings = read(_LEAST)
    assert (settings.splits, settings.workers) == (3, (1, 2, 4, 8))
    assert (settings.iterations, settings.period, settings.periods) == (100, 5, ())
    planned = trials(settings)
    assert [(t.split, t.workers, t.period) for t in planned[:5]] == [
        *((1, 1, 5), (1, 2, 5), (1, 4, 5), (1, 8, 5)),
        (2, 1, 5),
    ]
    assert params_of(settings, planned[4]) == {
        "maxIter": 20,
        "localEpochs": 5,
        "miniBatchFraction": 0.1,
        "numWorkers": 1,
        "seed": 1,
        "finalWeights": "last",
    }


def test_the_posters_file_is_right() -> None:
    settings = load(str(ROOT / "conf/poster.toml"))
    assert settings.arms[0].params["averaging"] == "mean"
    assert settings.period == 5
    assert not settings.arms[0].redraw
    assert settings.arms[1].redraw


def test_other_periods_are_tried_on_the_first_split(read: Callable[..., Settings]) -> None:
    settings = read(_LEAST, "experiment.periods=[20, 5, 1]", "experiment.workers=[1, 2]")
    assert settings.periods == (1, 20)
    assert [(t.split, t.period) for t in trials(settings)[6:]] == [(1, 1)] * 2 + [(1, 20)] * 2


@pytest.mark.parametrize(
    ("period", "fraction", "redraw", "expected"),
    [
        (5, 0.1, False, (5, 0.1)),
        (5, 0.1, True, (1, 0.5)),
        (20, 0.1, True, (2, 1.0)),
        (25, 0.1, True, (3, 2.5 / 3)),
        (10, 0.1, True, (1, 1.0)),
        (1, 1.0, True, (1, 1.0)),
    ],
)
def test_a_round_is_as_much_work_either_way(
    period: int, fraction: float, redraw: bool, expected: tuple[int, float]
) -> None:
    epochs, drawn = local_work(period, fraction, redraw=redraw)
    assert (epochs, drawn) == (expected[0], pytest.approx(expected[1]))
    assert epochs * drawn == pytest.approx(period * fraction)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("experiment.splits=0", "experiment.splits: expected a whole number from 1, got 0."),
        ("experiment.splits=true", "experiment.splits: expected a whole number from 1, got True."),
        ("experiment.seed=-1", "experiment.seed: expected a whole number from 0, got -1."),
        ("experiment.testFraction=1", "above 0 and below 1, got 1."),
        ("experiment.miniBatchFraction=1.5", "above 0 and up to 1, got 1.5."),
        ("experiment.workers=4", "experiment.workers: expected a list of whole numbers"),
        ("experiment.workers=[2, 4]", "experiment.workers: 1 is missing, the sequential"),
        ("experiment.period=7", "experiment.period: 7 does not divide the 100 of"),
        ("experiment.periods=[10, 3]", "experiment.periods: 3 does not divide the 100 of"),
        ("experiment.split=3", "experiment.split: unknown key; did you mean 'splits'?"),
        ("experiment.solver=adam", "it belongs to an arm: [arms.NAME] solver = ..."),
        ("data.format=xls", "data.format: expected one of parquet, csv"),
        ("data.rows=none", "data.rows: expected a whole number from 1, got 'none'."),
        ("network.hiddenLayers=[0]", "network.hiddenLayers = [0]; expected"),
        ("network.hiddenLayer=[3]", "did you mean 'hiddenLayers'?"),
        ("arms.only.solver=sdg", "arms.only.solver = 'sdg'; expected 'auto', "),
        ("arms.only.redraw=1", "arms.only.redraw: expected true or false, got 1."),
        ("arms.only.redrew=true", "arms.only.redrew: unknown key; did you mean 'redraw'?"),
        ("arms.only.maxIter=3", "arms.only.maxIter: is set by experiment.iterations and"),
        ("arms.only.finalWeights=best", "whose final model is the last average."),
        ("arms.other=3", "arms.other: expected a section [arms.other], got 3."),
        ("experiments.splits=3", "[experiments]: unknown section; did you mean 'experiment'?"),
        ("splits=3", "splits: unknown"),
        ("output.folder=", "output.folder: expected text, got empty text."),
        ("nothing", "--set nothing: expected KEY=VALUE"),
    ],
)
def test_a_mistake_is_named(override: str, expected: str, read: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError) as error:
        read(_LEAST, override)
    assert len(error.value.mistakes) == 1
    assert expected in str(error.value)


def test_all_mistakes_are_named_at_once(read: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError) as error:
        read("data = 3\n[experiment]\nsplits = 0\n[arms.a]\nstepSize = -1\n[arms.b]\nx = 1")
    starts = [mistake.split(":")[0].split(" =")[0] for mistake in error.value.mistakes]
    assert starts == [
        *("data", "experiment.splits", "output.folder", "arms.a.stepSize", "arms.b.x"),
    ]


def test_an_experiment_needs_an_arm(read: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError, match=r"arms: missing\. At least one section \[arms\.NAME\]"):
        read('[data]\ntrain = "a"\n[output]\nfolder = "b"')


def test_the_command_names_them_and_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.toml").write_text(_LEAST)
    arguments = ["--set", "experiment.splits=0", "arms.only.solver=sdg"]
    assert main(["experiment", str(tmp_path / "e.toml"), *arguments]) == 2
    said = capsys.readouterr().err
    assert "2 mistakes" in said
    assert "experiment.splits" in said
    assert "arms.only.solver" in said
    assert main(["experiment", str(tmp_path / "no.toml")]) == 2


def test_the_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "--help"]) == 0
    said = capsys.readouterr().out
    for key in ("miniBatchFraction", "periods", "redraw", "averagingMomentum", "hiddenLayers"):
        assert key in said
