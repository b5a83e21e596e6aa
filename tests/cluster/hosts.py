"""A standalone cluster of two hosts on this machine.

Where root may make network namespaces (Debian's ``iproute2``), each host has an address, a name and
a scratch disk of its own, and its link to the others can be cut. Elsewhere hosts are two loopback
addresses with two scratch folders.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyspark

SPARK_CLASS = str(Path(pyspark.__file__).parent / "bin" / "spark-class")

# Run as the first process of a host: a host name and a disk that no other host sees.
_ENTER = """
import os, socket, subprocess, sys
name, address, scratch, n_bytes, hosts, *command = sys.argv[1:]
socket.sethostname(name)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", scratch], check=True)
subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
os.execvp(command[0], command)
"""


@cache
def have_namespaces() -> bool:
    """Return whether this process may make network namespaces and mounts."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return False
    name = f"sparknn-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


def wait_for(happened: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait until something has happened; fail if it has not in time."""
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


@dataclass
class Host:
    """A host, and the Spark worker on it.

    Parameters
    ----------
    name, address : str
    scratch : Path
        Its scratch disk, as the host sees it.
    link : str
        Where its network can be cut; empty on loopback.
    """

    name: str
    address: str
    scratch: Path
    link: str = ""
    worker: "subprocess.Popen[bytes] | None" = None

    @property
    def disk(self) -> Path:
        """The scratch disk as this process sees it."""
        assert self.worker is not None
        return Path(f"/proc/{self.worker.pid}/root{self.scratch}") if self.link else self.scratch

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Cut the host's network while the block lasts."""
        _ip("link", "set", self.link, "down")
        try:
            yield
        finally:
            _ip("link", "set", self.link, "up")

    def is_reachable(self, port: int) -> bool:
        try:
            with socket.create_connection((self.address, port), timeout=2):
                return True
        except OSError:
            return False

    def leftovers(self) -> list[str]:
        """Folders of shards that are still on the disk."""
        return [str(path) for path in self.disk.rglob("sparknn-*") if path.is_dir()]


@dataclass
class Cluster:
    """A running cluster; ``settings`` are those of a session on it."""

    url: str
    address: str
    hosts: list[Host]
    settings: dict[str, str] = field(default_factory=dict)


@contextmanager
def two_hosts(folder: Path, disk_bytes: int = 256 << 20, cores: int = 2) -> Iterator[Cluster]:
    """Start a master and two workers, and end them, and nothing else, at the end."""
    with ExitStack() as stack:
        name = f"snn{os.getpid() % 100_000}"
        if have_namespaces():
            address, hosts = _namespaces(stack, name, folder)
        else:
            address = "127.0.0.1"
            hosts = [Host(n, f"127.0.0.{i}", folder / n) for i, n in ((2, "a"), (3, "b"))]
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        deploy = "org.apache.spark.deploy"
        master = [SPARK_CLASS, f"{deploy}.master.Master", "--host", address]
        _start(stack, [*master, "--port", str(port), "--webui-port", "0"], folder / "master", {})
        cluster = Cluster(f"spark://{address}:{port}", address, hosts)
        for host in hosts:
            host.scratch.mkdir(exist_ok=True)
            command = [SPARK_CLASS, f"{deploy}.worker.Worker", "--host", host.address]
            command += ["--webui-port", "0", "--cores", str(cores), "--memory", "2g"]
            command += ["--work-dir", str(host.scratch / "work"), cluster.url]
            if host.link:
                names = folder / "hosts"
                lines = ["127.0.0.1 localhost", *(f"{each.address} {each.name}" for each in hosts)]
                names.write_text("\n".join(lines) + "\n")
                enter = [sys.executable, "-c", _ENTER, host.name, host.address, str(host.scratch)]
                enter += [str(disk_bytes), str(names)]
                inside = ["ip", "netns", "exec", host.name, "unshare", "--mount", "--uts"]
                command = [*inside, *enter, *command]
            own = {"SPARK_LOCAL_DIRS": str(host.scratch), "SPARK_LOCAL_IP": host.address}
            log = folder / f"worker-{host.name}"
            host.worker = _start(stack, command, log, own)
        for host in hosts:
            log = folder / f"worker-{host.name}"
            wait_for(lambda log=log: b"registered with master" in log.read_bytes(), 60, str(log))
        cluster.settings = {
            "spark.driver.host": address,
            "spark.driver.bindAddress": address,
            "spark.executor.memory": "768m",
        }
        yield cluster


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _namespaces(stack: ExitStack, name: str, folder: Path) -> tuple[str, list[Host]]:
    """Make two namespaces, on a bridge with this one."""
    taken = _ip("-4", "addr")
    net = next(net for net in (f"10.213.{n}" for n in range(1, 255)) if net not in taken)
    _ip("link", "add", name, "type", "bridge")
    stack.callback(_ip, "link", "del", name)
    _ip("addr", "add", f"{net}.1/24", "dev", name)
    _ip("link", "set", name, "up")
    hosts = []
    for number, letter in ((2, "a"), (3, "b")):
        host, link = f"{name}{letter}", f"{name}{letter}0"
        _ip("netns", "add", host)
        stack.callback(_end_namespace, host)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host)
        _ip("link", "set", link, "master", name, "up")
        inside = ("-n", host)
        _ip(*inside, "addr", "add", f"{net}.{number}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip(*inside, "link", "set", device, "up")
        _ip(*inside, "route", "add", "default", "via", f"{net}.1")
        hosts.append(Host(host, f"{net}.{number}", folder / "scratch", link))
    return f"{net}.1", hosts


def _end_namespace(host: str) -> None:
    for pid in _ip("netns", "pids", host).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "del", host)


def _start(
    stack: ExitStack, command: list[str], log: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a process whose group ends with the stack."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
