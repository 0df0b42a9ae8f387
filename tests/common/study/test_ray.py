"""Studies on a Ray cluster of two nodes, one of which is lost."""

import csv
import socket
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from common import cli
from common.study import ray_engine
from common.study.folders import State, read
from tests.common.study import real_runs
from tests.common.study.real_runs import assert_finished_once, attempts, log, meet_half_way, returns, studying
from tests.common.study.written_runs import study

pytest.importorskip("ray", reason="Ray is an extra: pip install 'smg-sgqn[cluster]'")
# Ray's own are not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

# A killed node is taken for dead after three seconds; one that is merely slow has as long as ever.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes with one each, all on this machine."""
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        yield cluster
    finally:
        cluster.shutdown()


def parent(process: int) -> int:
    """The process that started another."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_stopped_study_saves_on_all_nodes_and_goes_on_without_one_of_them(
    tmp_path: Path, cluster: Any
) -> None:
    planned = study(tmp_path, text=real_runs.STUDY)
    sac, drq = planned.runs
    arguments = ("--engine", "ray", "--address", cluster.address, "--retries", "0")
    command = (tmp_path / "small.yaml", f"folder={planned.folder}", *arguments)

    with studying(*command) as process:
        meet_half_way(sac)
        process.signal(SIGTERM)
        assert process.wait() == 75
        assert "stopped by SIGTERM and saved; the same command goes on from there" in process.printed()
    assert attempts(sac) == [75]
    assert "stopped by SIGTERM and saved" in log(sac)
    assert read(sac).state is State.UNFINISHED
    assert not (planned.folder / "small.md").exists()

    with studying(*command) as process:
        real_runs.until(lambda: log(sac).count(f"{sac.folder}: sac on") == 2, "resuming the run")
        raylet = parent(parent(meet_half_way(sac)))
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
        cluster.remove_node(raylets[raylet], allow_graceful=False)
        assert process.wait() == 0
        assert f"{sac.name}: the node or worker was lost (" in process.printed()
    for run in planned.runs:
        assert_finished_once(run)
    assert log(sac).count(f"{sac.folder}: sac on") == 3
    assert set(attempts(drq)) <= {0, 75, -SIGTERM}
    lines = csv.DictReader((planned.folder / "small.csv").read_text().splitlines())
    rows = [line for line in lines if line["task"]]
    assert {row["agent"]: float(row["mean"]) for row in rows} == {
        run.column: pytest.approx(returns(run)[0]) for run in planned.runs
    }


def refusal(tmp_path: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a study on Ray ends with before its first run."""
    planned = study(tmp_path, text=real_runs.STUDY)
    command = ["study", "run", str(tmp_path / "small.yaml"), f"folder={planned.folder}", "--engine", "ray"]
    assert cli.main([*command, *arguments]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert not planned.folder.exists()
    return line


def test_an_address_where_no_ray_listens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        line = refusal(tmp_path, capfd, "--address", address)
    assert line.startswith(f"smg: --address {address}: no Ray cluster answers there (")


def test_an_address_where_something_else_listens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "PATIENCE", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        line = refusal(tmp_path, capfd, "--address", address)
    assert line.startswith(f"smg: --address {address}: no Ray cluster of this version answers there")


def test_an_address_that_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = refusal(tmp_path, capfd, "--address", "ray://head:10001")
    assert line.startswith("smg: --address ray://head:10001: should be host:port of the Ray head, or auto")


def test_resources_that_no_node_has(tmp_path: Path, capfd: pytest.CaptureFixture[str], cluster: Any) -> None:
    line = refusal(tmp_path, capfd, "--address", cluster.address, "resources.cpus=2")
    assert line == (
        "smg: no node of the Ray cluster has what a run asks for (0 GPUs, 2 cores): lower resources.gpus, "
        "resources.cpus or resources.memory"
    )
