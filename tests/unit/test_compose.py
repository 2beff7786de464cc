"""docker-compose.yml and the Dockerfile keep the rules that we have for them (docs/docker.md)."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OURS = {"setup", "web", "worker", "beat"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_every_service_that_stays_is_watched_and_started_again(compose):
    for name, service in compose["services"].items():
        if name != "setup":
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_data_lie_in_named_volumes(compose):
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", ())]
    used = {volume.partition(":")[0] for volume in volumes}
    assert used == set(compose["volumes"])
    assert {"postgres", "redis", "mongo", "elasticsearch"} <= used


def test_the_site_starts_when_its_services_answer(compose):
    services = compose["services"]
    waits = {name: condition["condition"] for name, condition in services["setup"]["depends_on"].items()}
    assert waits == dict.fromkeys(["postgres", "redis", "mongo", "elasticsearch"], "service_healthy")
    for name in OURS - {"setup"}:
        assert services[name]["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}


def test_the_stores_are_open_to_this_machine_only(compose):
    for name, service in compose["services"].items():
        if name != "web":
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_our_processes_have_no_privileges(compose):
    for name in OURS:
        assert compose["services"][name]["cap_drop"] == ["ALL"]
    lines = (ROOT / "mt_site" / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert "USER site" in last_stage
    assert not any(word in line for line in last_stage for word in ("apt-get", "pip install"))
