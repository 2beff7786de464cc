"""The demo as a visitor without a browser meets it."""

import ast
import json
import threading
from pathlib import Path

import pytest

from tests.demo.running import ROOT, WAIT_SECONDS, Client, Demo, eventually

pytestmark = pytest.mark.xdist_group("demo")

ONE, TWO = "tenant-1.test.com", "tenant-2.test.com"


def visitor(demo: Demo, host: str) -> Client:
    """A client that has opened the page and so holds the CSRF cookie."""
    client = demo.client(host)
    assert client.get("/").status == 200
    return client


def test_hospitals_differ_between_tenants(demo):
    one, two = (set(demo.client(host).names("/api/hospitals/")) for host in (ONE, TWO))
    assert one
    assert two
    assert not one & two


@pytest.mark.parametrize("host", ["tenant-1.localhost", "TENANT-1.localhost", ONE, "Tenant-1.Test.Com", ONE + "."])
def test_a_tenant_has_several_spellings(demo, host):
    assert demo.client(host).names("/api/hospitals/") == demo.client(ONE).names("/api/hospitals/")


@pytest.mark.parametrize("host", ["nobody.test.com", "nobody.localhost", "localhost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("path", ["/", "/api/hospitals/", "/admin/"])
def test_an_unknown_host_is_404(demo, host, path):
    assert demo.client(host).get(path).status == 404


def test_the_page_names_its_tenant_and_links_to_the_others(demo):
    page = demo.client("tenant-2.localhost").get("/").body
    assert f"<h1>{TWO}</h1>" in page
    assert f'href="{demo.url("tenant-1")}"' in page
    assert f'href="http://tenant-1.test.com:{demo.port}/"' in demo.client(TWO).get("/").body


def test_health_needs_no_tenant(demo):
    assert demo.client("localhost").get("/healthz").body == "ok"


def test_a_patient_is_added_by_the_worker_to_one_database_only(demo):
    client = visitor(demo, ONE)
    answer = client.add_patient({"name": "Ada of Tenant One", "age": 36, "hospital": 1})
    assert (answer.status, answer.json["name"], answer.json["patients_added"]) == (202, "Ada of Tenant One", 1)
    eventually(lambda: "Ada of Tenant One" in client.names("/api/patients/"), WAIT_SECONDS, "the task has run")
    assert "Ada of Tenant One" not in demo.client(TWO).names("/api/patients/")
    holders = [name for name, patients in demo.patients_by_database().items() if "Ada of Tenant One" in patients]
    assert holders == ["tenant_1"]


def test_sessions_count_per_visitor_and_live_in_the_tenant(demo):
    first, second = visitor(demo, TWO), visitor(demo, TWO)
    assert first.add_patient({"name": "Counted"}).json["patients_added"] == 1
    assert first.add_patient({"name": "Counted"}).json["patients_added"] == 2
    assert second.add_patient({"name": "Counted"}).json["patients_added"] == 1
    elsewhere = Client(demo.port, ONE, first.cookies)
    assert elsewhere.add_patient({"name": "Counted"}).status == 403  # the other tenant's CSRF token
    elsewhere.get("/")
    assert elsewhere.add_patient({"name": "Counted"}).json["patients_added"] == 1


def test_adding_needs_the_csrf_token(demo):
    assert demo.client(ONE).add_patient({"name": "Nobody"}).status == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"name"',
        b"\xff",
        b"[" * 100_000,
        {},
        {"name": ""},
        {"name": "  "},
        {"name": None},
        {"name": 7},
        {"name": ["Ada"]},
        {"name": {"first": "Ada"}},
        {"name": "x" * 121},
        {"name": "nul\0"},
        b'{"name": "\\ud800"}',
        {"name": "Ada", "age": -1},
        {"name": "Ada", "age": 131},
        {"name": "Ada", "age": 1.5},
        {"name": "Ada", "age": True},
        b'{"name": "Ada", "age": NaN}',
        {"name": "Ada", "age": "old"},
        {"name": "Ada", "hospital": 0},
        {"name": "Ada", "hospital": 10**30},
        {"name": "Ada", "hospital": "first"},
    ],
    ids=lambda body: str(body)[:40],
)
def test_bad_input_is_answered_400_with_json(demo, body):
    answer = visitor(demo, TWO).add_patient(body)
    assert answer.status == 400
    assert answer.json["error"]


def test_the_hospital_list_is_cached_and_forgotten_on_change(demo):
    client = demo.client(TWO)
    before = client.names("/api/hospitals/")
    shell = demo.manage("shell", "--tenant-id", TWO, "-c", _ADD_HOSPITAL)
    assert shell.returncode == 0, shell.stderr
    assert set(client.names("/api/hospitals/")) == {*before, "Newly Built"}
    assert "Newly Built" not in demo.client(ONE).names("/api/hospitals/")


_ADD_HOSPITAL = """
from hospitals.models import Hospital
Hospital.objects.create(name="Newly Built", city="Anywhere", beds=1)
"""


def test_the_administration_is_open_to_the_demo_user_of_each_tenant(demo):
    client = demo.client(ONE)
    assert client.get("/admin/login/").status == 200
    assert client.log_in("demo", "demo") == 302
    assert "Hospitals" in client.get("/admin/").body
    assert Client(demo.port, TWO, client.cookies).get("/admin/").status == 302


def test_a_third_tenant_is_added_while_the_demo_serves(demo):
    client, pids = demo.client("tenant-3.localhost"), demo.servers()
    assert client.get("/").status == 404
    with Hammer(demo.client(ONE)) as hammer:
        added = demo.command("tenant", "tenant-3.test.com")
    assert added.returncode == 0, added.stderr
    assert demo.url("tenant-3") in added.stdout
    eventually(lambda: _served(client, 20), WAIT_SECONDS, "every worker serves tenant-3")
    assert not set(client.names("/api/hospitals/")) & set(demo.client(ONE).names("/api/hospitals/"))
    assert hammer.bad == []
    assert pids <= demo.servers(), "a process was replaced"
    _add_and_find(visitor(demo, "tenant-3.localhost"))


def _served(client: Client, times: int) -> bool:
    return all(client.get("/api/hospitals/").status == 200 for _ in range(times))


def _add_and_find(client: Client) -> None:
    assert client.add_patient({"name": "First of Three"}).status == 202
    eventually(lambda: "First of Three" in client.names("/api/patients/"), WAIT_SECONDS, "the worker knows tenant-3")


class Hammer:
    """Asks without a pause from another thread and remembers every answer that is not 200."""

    def __init__(self, client: Client) -> None:
        self.client, self.bad, self._stop = client, [], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self.client.get("/api/hospitals/")
            if answer.status != 200:
                self.bad.append(answer)

    def __enter__(self) -> "Hammer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_the_site_imports_nothing_of_tenant_router():
    """It is named in settings as text only: that is what "by settings alone" means."""
    for path in (ROOT / "mt_site").rglob("*.py"):
        assert "tenant_router" not in _imported(path), path


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_the_configuration_file_has_two_tenants():
    config = json.loads((ROOT / "tenant_config.json").read_text("utf-8"))
    assert set(config) == {"mapping_metadata", "tenant_config"}
    assert set(config["tenant_config"]) == {ONE, TWO}
