"""Requests fanned out over a real two-node Ray cluster, one node killed in the middle."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spiritsafe.errors import MissingExtra
from spiritsafe.models import fan, user
from spiritsafe.models.base import Request, exchange_id
from spiritsafe.record import Exchange, Sampling, digest_of, read_jsonl

REQUESTS = [Request(user(f"question {i}"), Sampling(seed=i)) for i in range(120)]
ADDRESS = "fake:slow=0.05"

CLUSTER = """
import json, os, sys, time
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
from spiritsafe.errors import ModelError
from spiritsafe.make.data.collect import collect
from spiritsafe.make.data.settings import Budget, CollectPart
from spiritsafe.models.fan import Fan, fan_out
from tests.models.test_fan import ADDRESS, REQUESTS

small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
path, said = Path(sys.argv[1]), {}
try:
    with Fan(ADDRESS, actors=2, lease=4, cluster=cluster.address) as fan:
        said["stopped"] = collect(fan, REQUESTS, path, CollectPart(budget=Budget(tokens=150))).stopped
        seen = []
        def tick():
            seen.append(time.monotonic())
            if len(seen) == 60:
                cluster.remove_node(nodes[0], allow_graceful=False)
        said["asked"] = collect(fan, REQUESTS, path, CollectPart(), tick=tick).asked
    try:
        list(fan_out("fake:nonsense", REQUESTS, actors=1, cluster=cluster.address))
    except ModelError as error:
        said["broken"] = str(error)
    except Exception as error:
        said["broken"] = repr(error)
finally:
    cluster.shutdown()
print(json.dumps(said))
"""


@pytest.mark.slow
def test_with_a_node_killed_in_the_middle_nothing_is_lost_or_doubled(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "all.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(path)], cwd=root, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    ids = [e.id for e in read_jsonl(path, Exchange)]
    assert sorted(ids) == sorted(exchange_id(digest_of(ADDRESS), r) for r in REQUESTS)
    assert said["stopped"].startswith("tokens: ")
    assert 0 < said["asked"] < len(REQUESTS)
    assert "is not a fake model" in said["broken"]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'spiritsafe\[ray\]'"):
        next(fan.fan_out("fake:echo", REQUESTS, actors=1))
