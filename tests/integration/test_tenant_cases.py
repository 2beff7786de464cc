"""``tenant_router.testing`` for people who write tests about tenants, and the examples of ``docs/testing.md``."""

import re
import textwrap

import pytest

from tests.suite_project import running

EXAMPLES = re.findall(r"```python\n(.*?)```", (running.ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
HEAD = "import pytest\nfrom shop.models import Note\n\n"


@pytest.mark.parametrize("mode", ["tenant", "strict"])
def test_test_cases(tmp_path, mode):
    found = running.django(mode, tmp_path, labels=("shop.tenant_tests",), others="b.test c.test")
    assert len(found) > 20
    assert set(found.values()) == {"ok"}, found.output


def test_documented_test_cases(tmp_path):
    examples = [example for example in EXAMPLES if "TestCase" in example]
    assert examples
    (tmp_path / "test_documented.py").write_text(HEAD + "\n\n".join(examples))
    found = running.django("template", tmp_path, labels=("test_documented",))
    assert len(found) >= len(examples)
    assert set(found.values()) == {"ok"}, found.output


def test_documented_pytest_style(tmp_path):
    examples = [example for example in EXAMPLES if "pytest.mark" in example]
    assert examples
    (tmp_path / "test_documented.py").write_text(HEAD + textwrap.dedent("\n\n".join(examples)))
    found = running.pytest("template", tmp_path, folder=tmp_path)
    assert len(found) >= len(examples)
    assert set(found.values()) == {"PASSED"}, found.output


def test_documented_runner():
    assert 'TEST_RUNNER = "tenant_router.testing.TenantTestRunner"' in EXAMPLES[0]
