"""The tests on a cluster run only where they may, and say so otherwise."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from kubernetes_cluster import WARNING, is_local

ON_A_CLUSTER = "tests/test_kubernetes_operations.py::test_running_containers_are_locked_down"


def test_tests_without_a_cluster_are_skipped_with_a_warning() -> None:
    variables = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ON_A_CLUSTER],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert "1 skipped" in result.stdout
    assert WARNING in result.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_address_of_this_machine_is_local(host: str) -> None:
    assert is_local(f"https://{host}:6443")


@pytest.mark.parametrize("host", ["192.0.2.1", "198.51.100.7", "name.invalid"])
def test_address_of_another_machine_is_not_local(host: str) -> None:
    assert not is_local(f"https://{host}:6443")
