"""scripts/kubernetes_access.py writes a kubeconfig for a job."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from kubernetes_access import main

SERVER = "https://cluster.example.com:6443"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVER", SERVER)
    monkeypatch.delenv("KUBERNETES_CA", raising=False)
    monkeypatch.setenv("KUBERNETES_TOKEN", "of-this-job")  # option: gitlab


def write(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.argv", ["kubernetes_access.py", str(file)])
    main()
    return json.loads(file.read_text())


def test_kubeconfig_is_readable_by_its_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("of an earlier job")
    document = write(file, monkeypatch)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert document["clusters"][0]["cluster"] == {"server": SERVER}
    assert document["current-context"] == document["contexts"][0]["name"]


def test_kubeconfig_has_the_credential_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = write(tmp_path / "kubeconfig", monkeypatch)["users"][0]["user"]
    assert Path(user["exec"]["args"][0]).is_file()  # option: github
    assert user["token"] == "of-this-job"  # option: gitlab


def test_private_authority_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_CA", "LS0tLS1CRUdJTg==\n")
    cluster = write(tmp_path / "kubeconfig", monkeypatch)["clusters"][0]["cluster"]
    assert cluster["certificate-authority-data"] == "LS0tLS1CRUdJTg=="


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("", "KUBERNETES_SERVER is not set"),
        ("http://cluster.example.com", "KUBERNETES_SERVER is not an https:// URL"),
    ],
)
def test_wrong_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, message: str
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVER", server)
    with pytest.raises(SystemExit, match=f"no access to Kubernetes: {message}"):
        write(tmp_path / "kubeconfig", monkeypatch)
    assert not (tmp_path / "kubeconfig").exists()
