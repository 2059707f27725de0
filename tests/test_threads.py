"""How many threads are used, and that what is computed does not depend on them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spiritsafe import threads
from spiritsafe.errors import UsageError
from tests.conftest import Call

PRODUCTS = """
import hashlib, json, sys
import spiritsafe
import numpy as np, torch

def told(values):
    return hashlib.sha256(values.tobytes()).hexdigest()

torch.manual_seed(0)
found = {}
for rows in (1, 4, 7, 64):  # 4, 7 and 64 rows differed
    for inner, outer in ((576, 192), (1536, 576), (576, 1536)):
        found[f"{rows} x {inner} x {outer}"] = told((torch.randn(rows, inner) @ torch.randn(outer, inner).T).numpy())
rows = np.random.default_rng(0).normal(size=(3000, 2000)).astype(np.float32)
found["rows by vector"] = told(rows @ rows[0])
found["vector by rows"] = told(rows[:, 0] @ rows)  # differed
print(json.dumps(found))
"""


def alone(code: str, **environment: str) -> str:
    """What a fresh process says on stdout."""
    left = {k: v for k, v in os.environ.items() if k not in (threads.SETTING, threads.OPENMP, threads.SUMS)}
    left = {k: v for k, v in left.items() if k not in (*threads.BLAS, *threads.WAITING)}
    done = subprocess.run([sys.executable, "-c", code], env={**left, **environment}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four processors, two a core, without bounds; its files can be written."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for name, folder in (("CPUS", "cpus"), ("CGROUPS", "groups"), ("MEMBER", "member")):
        monkeypatch.setattr(threads, name, tmp_path / folder)
    for cpu in range(4):
        topology = tmp_path / "cpus" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_two_processors_of_one_core_are_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads.allowed() == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 3})
    assert threads.allowed() == 1


@pytest.mark.parametrize(("quota", "wanted"), [("100000", 1), ("150000", 1), ("50000", 1), ("200000", 2), ("max", 2)])
def test_the_quota_of_any_enclosing_group_counts(machine: Path, quota: str, wanted: int) -> None:
    write(machine / "member", "0::/pods/one\n")
    write(machine / "groups" / "pods" / "cpu.max", f"{quota} 100000\n")
    write(machine / "groups" / "pods" / "one" / "cpu.max", "max 100000\n")
    assert threads.allowed() == wanted


@pytest.mark.parametrize(("quota", "wanted"), [("100000", 1), ("-1", 2)])
def test_a_quota_of_version_1_counts(machine: Path, quota: str, wanted: int) -> None:
    write(machine / "member", "3:cpuset:/\n1:cpu,cpuacct:/the/hosts/path\n")
    write(machine / "groups" / "cpu" / "cpu.cfs_quota_us", quota)
    write(machine / "groups" / "cpu" / "cpu.cfs_period_us", "100000")
    assert threads.allowed() == wanted


def test_a_system_without_affinity_and_topology_counts_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    for name in ("CPUS", "CGROUPS", "MEMBER"):
        monkeypatch.setattr(threads, name, tmp_path / "none")
    assert threads.allowed() == 6


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"SPIRITSAFE_THREADS": "1", "OMP_NUM_THREADS": "2"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,2"}, 1),
        ({"OMP_NUM_THREADS": "many"}, threads.allowed()),
        ({}, threads.allowed()),
    ],
    ids=str,
)
def test_the_own_setting_goes_before_openmps_and_torch_follows(given: dict[str, str], wanted: int) -> None:
    code = "from spiritsafe.threads import number; n = number(); import torch; print(n, torch.get_num_threads())"
    assert alone(code, **given).split() == [str(wanted)] * 2


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", " "])
def test_a_setting_that_is_no_number_is_refused_in_a_line(
    given: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(threads.SETTING, given)
    with pytest.raises(UsageError, match="is not a number of threads"):
        threads.number()
    code, out, err = call("ls", "recipes")
    assert (code, out) == (2, "")
    assert err == f"error: SPIRITSAFE_THREADS={given}: is not a number of threads; a whole number from 1 on\n"


def test_waiting_threads_sleep_and_a_users_own_settings_stay() -> None:
    code = "import spiritsafe, os; print(*(os.environ[n] for n in ('OMP_WAIT_POLICY', 'OPENBLAS_NUM_THREADS')))"
    assert alone(code) == "passive 1\n"
    assert alone(code, OMP_WAIT_POLICY="active", OPENBLAS_NUM_THREADS="2") == "active 2\n"


def test_products_have_the_same_bits_on_any_number_of_threads() -> None:
    # MKL takes no more threads than there are cores, unless it is told.
    each = [{"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "MKL_DYNAMIC": "FALSE"} for n in ("1", "2", "3", "5")]
    found = [json.loads(alone(PRODUCTS, **settings)) for settings in each]
    assert all(other == found[0] for other in found[1:])


def test_a_process_that_loaded_torch_before_keeps_its_number() -> None:
    code = "import torch; torch.set_num_threads(1); from spiritsafe import threads; print(threads.number())"
    assert alone(code, OMP_NUM_THREADS="2") == "1\n"


def test_children_choose_for_themselves_unless_the_user_chose() -> None:
    code = """
import os
from spiritsafe import threads
with threads.unset_for_children():
    print(os.environ.get("OMP_NUM_THREADS"))
print("OMP_NUM_THREADS" in os.environ)
"""
    assert alone(code).split() == ["None", "True"]
    assert alone(code, OMP_NUM_THREADS="2").split() == ["2", "True"]
    assert alone(code, SPIRITSAFE_THREADS="2").split() == ["2", "True"]


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ({"threads": 2, "MKL_CBWR": "AVX2,STRICT"}, ""),
        ({"threads": 4, "MKL_CBWR": ""}, "threads 4 then, 2 now, MKL_CBWR unset then, AVX2,STRICT now"),
        ({}, ""),
    ],
    ids=["same", "other", "unknown"],
)
def test_a_difference_is_one_line(before: dict[str, Any], wanted: str) -> None:
    assert threads.difference(before, {"threads": 2, "MKL_CBWR": "AVX2,STRICT"}) == wanted
