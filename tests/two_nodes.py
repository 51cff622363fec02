"""A Ray cluster of two nodes with a core each, on this machine."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

NODE = {"num_cpus": 1, "object_store_memory": 150 * 2**20, "include_dashboard": False}
TESTS = Path(__file__).resolve().parent


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """Give the address of the cluster, which is `auto` meanwhile; its workers find this package and the tests."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent / '.src'}:{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("RAY_worker_niceness", "0")  # else other work on this machine starves them
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            cluster.add_node(**NODE)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def blocks(page: Path, section: str, language: str) -> list[str]:
    """Return the code of a section of a page."""
    text = page.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [part.partition("\n```")[0] for part in text.split(f"```{language}\n")[1:]]
