"""What holds for the whole house: where time comes from, what templates may reach, what the folders hold."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from pipeline import config
from pipeline.pick import Weights
from pipeline.providers import names
from tests.conftest import ROOT

CODE = [path for folder in ("pipeline", "subscribers") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_time_is_asked_for_by_doors_only() -> None:
    askers = {
        path.relative_to(ROOT).as_posix()
        for path in CODE
        if re.search(r"datetime\.now\(|\.today\(|utcnow", path.read_text("utf-8"))
    }
    assert askers == {"pipeline/newsroom.py", "pipeline/clock.py"}


def test_no_retry_hides_in_an_adapter() -> None:
    for path in (ROOT / "pipeline/providers").glob("*.py"):
        assert not re.search(r"Retry|max_retries|backoff", path.read_text("utf-8")), path


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    for path in CODE:
        assert re.match(r'"""\S', path.read_text("utf-8")), path


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_versions_and_hashes_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text("utf-8")
    assert "http://" not in lock
    assert "https://" not in lock
    assert "--index-url" not in lock
    for requirement in re.split(r"\n(?=\S)", lock.strip()):
        assert re.match(r"[\w.\[\]-]+==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_the_wheel_would_carry_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in CODE if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_the_readme_names_every_key_of_the_config() -> None:
    readme = Path(ROOT / "README.md").read_text("utf-8")
    for name in names():
        module = importlib.import_module(f"pipeline.providers.{name}")
        for key in (name, *config._known_keys(module.Options, ("",)), *module.Options.model_construct().secrets):
            assert f"`{key}`" in readme, f"{name}: {key}"
    tables = (
        config.Newsletter,
        config.Brand,
        config.Timetable,
        config.Storage,
        config.Web,
        config.Folders,
        config.Backup,
        config.Mailbox,
    )
    for table in (*tables, config.WarmUp, Weights):
        for name in config._known_keys(table, ("",)):
            assert f"`{name}`" in readme, name


def test_each_clause_of_the_promise_names_tests_that_there_are() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", Path(ROOT / "README.md").read_text("utf-8"))
    assert len(named) >= 6
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text("utf-8"), (file, test)
