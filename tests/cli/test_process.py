"""Commands in processes of their own: exit status, Spark's workers, and Control-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment(tmp_path: Path) -> dict[str, str]:
    """What a user's shell has: nothing that names a Python for Spark's workers."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")}
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return found | {"SPARK_LOCAL_DIRS": str(scratch), "PYTHONPATH": str(ROOT)}


# Every command in one JVM, as __main__.py runs them, with spark-submit's settings unchanged.
_SCRIPT = """
import runpy, sys
from sparknn.cli import main
from sparknn.cli.session import open_session

job, model, data = sys.argv[1:]
with open_session("a test") as spark:
    for name in ("spark.master", "spark.driver.host"):
        print(name, "=", spark.conf.get(name))
    rows = spark.sparkContext.parallelize([0], 1)
    print("executors import", rows.map(lambda _: __import__("sparknn").__file__).first())
    assert main(["train", job]) == 0
    out = model + "-predictions"
    assert main(["predict", "--model", model, "--data", data, "--output", out]) == 0
    assert main(["evaluate", "--model", model, "--data", data]) == 0
    sys.argv[1:] = ["train", job]  # whose model is there already
    runpy.run_path("{main}", run_name="__main__")
"""


@pytest.mark.slow
def test_spark_submit_with_the_zip(job: Path, points: Path, tmp_path: Path) -> None:
    """Two executors of their own, which have the package from the zip of ``make zip`` only."""
    import pyspark

    built = subprocess.run(
        [sys.executable, ROOT / ".ci" / "build-zip", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # Where the workers of such a cluster keep what belongs to a job.
    home, script, settings = tmp_path / "home", tmp_path / "script.py", tmp_path / "conf"
    home.mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        if part.name != "work":  # left by others
            (home / part.name).symlink_to(part)
    script.write_text(_SCRIPT.replace("{main}", str(ROOT / "sparknn" / "__main__.py")))
    settings.mkdir()
    (settings / "spark-defaults.conf").write_text("spark.driver.host 127.0.0.1\n")
    python = {"PYTHONPATH": "", "PYSPARK_PYTHON": sys.executable}
    python["PYSPARK_DRIVER_PYTHON"] = sys.executable
    done = processes.run(
        [
            *(home / "bin" / "spark-submit", "--master", "local-cluster[2,1,1024]"),
            *("--py-files", built, script),
            *(job, tmp_path / "model", points / "points.csv"),
        ],
        cwd=tmp_path,
        env=environment(tmp_path)
        | python
        | {"SPARK_HOME": str(home), "SPARK_CONF_DIR": str(settings)},
        timeout_s=400,
    )
    # spark-submit sends what a Python program says on stderr to its own stdout.
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "spark.master = local-cluster[2,1,1024]" in said
    assert "spark.driver.host = 127.0.0.1" in said
    (imported,) = [line for line in said.splitlines() if line.startswith("executors import ")]
    assert f"{Path(built).name}/sparknn" in imported
    assert {log.parent.name for log in home.glob("work/app-*/*/stderr")} >= {"0", "1"}
    assert "round 3/3" in said
    assert "accuracy" in said
    assert f"output.model: {tmp_path}/model exists already." in said
    assert (tmp_path / "model" / "metadata").is_dir()


@pytest.mark.slow
def test_interrupting_a_fit_leaves_nothing_behind(job: Path, tmp_path: Path) -> None:
    """In a plain process, whose workers find its interpreter, though nothing names it to Spark."""
    job.write_text(job.read_text().replace("maxIter = 3", "maxIter = 10000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "sparknn", "train", str(job)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    seen = []
    try:
        assert process.stderr is not None
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
