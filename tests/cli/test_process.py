"""Commands as processes of their own, as shells and spark-submit run them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-m", "sparknn"]

_JOB = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
[network]
hiddenLayers = [8]
[training]
maxIter = {rounds}
[averaging]
numWorkers = 2
[output]
model = "{out}/model"
"""


@pytest.fixture
def job(points: Path, tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(_JOB.format(data=points, out=tmp_path, rounds=2))
    return path


def environment(tmp_path: Path) -> dict[str, str]:
    """What a user's shell has: nothing that names a Python for Spark's workers."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return found | {"SPARK_LOCAL_DIRS": str(scratch), "PYTHONPATH": str(ROOT)}


def test_train_in_a_plain_process(job: Path, tmp_path: Path) -> None:
    """Workers find the interpreter that the command runs in, though nothing tells Spark of it."""
    done = subprocess.run(
        [*PYTHON, "train", str(job)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "round 2/2" in done.stderr
    assert (tmp_path / "model" / "metadata").is_dir()
    assert list((tmp_path / "scratch").iterdir()) == []


def spark_submit(
    tmp_path: Path, *arguments: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    import pyspark

    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    return subprocess.run(
        [str(submit), *arguments],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYSPARK_DRIVER_PYTHON": sys.executable} | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_spark_submit_says_on_which_cluster(job: Path, tmp_path: Path) -> None:
    """Two executors of their own, and the package as the zip that the README makes."""
    built = subprocess.run(
        [sys.executable, ROOT / ".ci" / "build-zip", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    import pyspark

    # Where the workers of such a cluster keep what belongs to a job.
    home = tmp_path / "home"
    home.mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        (home / part.name).symlink_to(part)
    cluster = "local-cluster[2,1,1024]"
    done = spark_submit(
        tmp_path,
        *("--master", cluster, "--py-files", built.stdout.strip()),
        *(str(ROOT / "sparknn" / "__main__.py"), "train", str(job)),
        PYSPARK_PYTHON=sys.executable,
        SPARK_HOME=str(home),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"on {cluster}, started" in done.stdout
    assert {log.parent.name for log in home.glob("work/app-*/*/stderr")} >= {"0", "1"}
    assert (tmp_path / "model" / "metadata").is_dir()


def test_a_command_changes_no_setting_that_spark_was_given(tmp_path: Path) -> None:
    script = tmp_path / "tell.py"
    script.write_text(
        "from sparknn.cli.session import open_session\n"
        "with open_session('a test') as spark:\n"
        "    for name in ('spark.master', 'spark.driver.bindAddress', 'spark.driver.host'):\n"
        "        print(name, '=', spark.conf.get(name))\n"
    )
    settings = tmp_path / "conf"
    settings.mkdir()
    (settings / "spark-defaults.conf").write_text("spark.driver.host 127.0.0.1\n")
    done = spark_submit(
        tmp_path,
        *("--master", "local[1]", "--conf", "spark.driver.bindAddress=127.0.0.2", str(script)),
        SPARK_CONF_DIR=str(settings),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spark.master = local[1]" in done.stdout
    assert "spark.driver.bindAddress = 127.0.0.2" in done.stdout
    assert "spark.driver.host = 127.0.0.1" in done.stdout


def test_spark_submit_passes_the_exit_status_on(job: Path, tmp_path: Path) -> None:
    done = spark_submit(
        tmp_path,
        *("--master", "local[2]", str(ROOT / "sparknn" / "__main__.py")),
        *("train", str(job), "--set", "data.train=/nowhere.csv"),
    )
    assert done.returncode == 2, done.stderr
    # spark-submit sends what a Python program says on stderr to its own stdout.
    assert "sparknn: data.train: there is no /nowhere.csv." in done.stdout
    assert "\tat " not in done.stdout + done.stderr


def test_mistakes_in_a_job_file_are_found_without_spark(job: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*PYTHON, "train", str(job), "--set", "training.maxIter=0", "training.stepsize=1"],
        cwd=tmp_path,
        env=environment(tmp_path) | {"JAVA_HOME": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "2 mistakes" in done.stderr
    assert "training.maxIter = 0" in done.stderr
    assert "did you mean 'stepSize'?" in done.stderr


def test_wrong_paths_are_found_without_spark(job: Path, points: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    outside = environment(tmp_path) | {"JAVA_HOME": "/nowhere"}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PYTHON, *arguments],
            cwd=tmp_path,
            env=outside | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    wrong = ["data.train=file:/nowhere.csv", "data.test=nowhere.csv"]
    done = run("train", str(job), "--set", *wrong)
    assert done.returncode == 2
    assert "3 mistakes" in done.stderr
    assert "data.train: there is no file:/nowhere.csv." in done.stderr
    assert "data.test: there is no nowhere.csv." in done.stderr
    assert "output.model: the path" in done.stderr
    done = run("predict", "--model", "m", "--data", "nowhere.csv", "--output", "model")
    assert done.returncode == 2
    assert "--data: there is no nowhere.csv." in done.stderr
    assert "--output: the path model exists already" in done.stderr
    # Where a relative path may be a cluster's, only Spark can tell.
    done = run("train", str(job), "--set", *wrong, HADOOP_CONF_DIR="/etc/hadoop")
    assert "data.train" in done.stderr
    assert "data.test" not in done.stderr


def test_interrupting_a_fit_leaves_nothing_behind(job: Path, tmp_path: Path) -> None:
    job.write_text(job.read_text().replace("maxIter = 2", "maxIter = 10000"))
    process = subprocess.Popen(
        [*PYTHON, "train", str(job)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    seen = []
    try:
        for line in process.stderr:
            seen.append(line)
            if line.startswith("round"):
                break
        # What a terminal does on Ctrl-C: the whole group hears of it.
        os.killpg(process.pid, signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, "".join(seen) + rest
    assert rest.splitlines()[-1] == "sparknn: interrupted"
    assert "Traceback" not in rest
    assert not (tmp_path / "model").exists()
    for _ in range(50):  # the JVM removes its folders as it ends, a moment later
        left = list((tmp_path / "scratch").iterdir())
        if not left:
            break
        time.sleep(0.2)
    assert left == []


def test_none_of_sparks_loggers_has_a_level_of_its_own() -> None:
    """It would print the traces of failed tasks where a command has turned Spark's log off."""
    settings = (ROOT / "conf" / "log4j2.properties").read_text().splitlines()
    names = [line for line in settings if line.startswith("logger.") and ".name = " in line]
    assert names
    assert not [line for line in names if "org.apache.spark" in line]
