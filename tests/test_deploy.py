"""What deploy/ holds is accepted by the tools that will read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qcnode.config import load

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed")


def systemd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(SYSTEMD), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "qcnode.service").read_text()
    assert "\nExecStart=/opt/qcnode/bin/qcnode serve" in text
    unit = tmp_path / "qcnode.service"
    unit.write_text(text.replace("/opt/qcnode/bin/qcnode", sys.executable))  # which is not installed here
    done = systemd("verify", unit)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "qcnode" in line]) == (0, [])


@needs_systemd
def test_the_unit_is_as_closed_as_the_documentation_says(tmp_path: Path) -> None:
    done = systemd("security", "--offline=true", "--no-pager", DEPLOY / "qcnode.service")
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline")
    found = re.search(r"Overall exposure level for qcnode\.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    named = re.search(r"`systemd-analyze security` gives it ([\d.]+)", (ROOT / "docs" / "operations.md").read_text())
    assert named is not None
    assert float(found[1]) <= float(named[1]) <= 2.0


def test_the_unit_gives_the_node_the_time_that_it_may_take_to_stop() -> None:
    from qcnode.delivery.dicom import CONNECTION_SECONDS, RESPONSE_SECONDS

    seconds = int(re.search(r"TimeoutStopSec=(\d+)", (DEPLOY / "qcnode.service").read_text())[1])
    assert seconds > RESPONSE_SECONDS + 2 * CONNECTION_SECONDS
    assert f"stop_grace_period: {seconds}s" in (DEPLOY / "compose.yaml").read_text()


def test_compose_names_what_is_there() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"qcnode", "orthanc"}
    build = services["qcnode"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in compose["volumes"]
    assert set(services["qcnode"]["depends_on"]) <= set(services)


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_docker_compose_takes_the_file() -> None:
    command = ["docker", "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("docker has no compose here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configuration_beside_compose_speaks_of_its_orthanc() -> None:
    (destination,) = load(DEPLOY / "compose.toml").destinations
    orthanc = json.loads((DEPLOY / "orthanc.json").read_text())
    assert (destination.ae_title, destination.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert load(DEPLOY / "qcnode.example.toml").dicom.port == 11112


def test_the_image_holds_what_is_installed_and_runs_as_nobody_special() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    allowed = set(re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M))
    assert allowed == copied
    assert {"qcnode", "train", "weights", "setup.cfg", "constraints.txt"} <= copied
    assert re.findall(r"^USER (.+)$", text, re.M) == ["qcnode"]
    health = json.loads(re.search(r"CMD (\[\"python3\".+\])", text)[1])
    compile(health[2], "healthcheck", "exec")
