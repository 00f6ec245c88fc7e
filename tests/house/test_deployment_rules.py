"""What is shipped fits what is written: locks, image, compose file, Makefile and CI, as far as no engine is needed.

The image is not built here: these rules find the file that was renamed, the setting that does not exist and the
command that is gone before a build does.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.house import sources
from tests.house.sources import ROOT

LOCKED = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>\S+)", re.MULTILINE)
LOCKS = ("requirements.lock", "requirements.runtime.lock", "requirements.build.lock")
PARTS_OF = {
    "starlette": "fastapi",  # FastAPI's requests and responses are Starlette's
    "pydantic_core": "pydantic",
    "httpx2": "anthropic",  # the client that the SDK is given must be of the library it was written for
}
OURS = ("migrate", "api", "worker")
ONE_SHOT = "migrate"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_every_package_with_hashes_and_no_address(lock: str) -> None:
    text = _read(lock)

    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]

    assert entries
    assert all(LOCKED.match(entry) and "--hash=sha256:" in entry for entry in entries), "Run: make lock"
    assert "://" not in text, "A lock names packages, not where they come from. Run: make lock"
    assert "--index" not in text, "A lock names packages, not where they come from. Run: make lock"


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_smaller_locks_agree_with_the_whole_one(lock: str) -> None:
    whole, part = _versions(LOCKS[0]), _versions(lock)

    differing = {name: (version, whole.get(name)) for name, version in part.items() if whole.get(name) != version}

    assert not differing, f"The image would run other versions than the tests: {differing}. Run: make lock"


def test_lock_holds_every_package_the_project_asks_for() -> None:
    project = _project()
    asked = {_name(line) for line in project["dependencies"]}
    extras = {_name(line) for lines in project["optional-dependencies"].values() for line in lines}

    assert asked <= _versions("requirements.runtime.lock").keys(), "Run: make lock"
    assert asked | extras <= _versions("requirements.lock").keys(), "Run: make lock"


def test_every_imported_library_is_asked_for_by_name() -> None:
    asked = {_name(line) for line in _project()["dependencies"]}
    named = {_name(line) for extra in ("embedded",) for line in _project()["optional-dependencies"][extra]}
    carriers = packages_distributions()

    imported = {
        (module.path, top)
        for module in sources.modules("app", "worker", "migrations")
        for top in (name.partition(".")[0] for name, _ in sources.imports(module.tree))
        if top not in sys.stdlib_module_names and top not in ("app", "worker", "migrations", "surefoot")
    }

    unasked = [
        f"{path}: {top}"
        for path, top in sorted(imported)
        if not {_name(carrier) for carrier in [PARTS_OF.get(top, top), *carriers[top]]} & (asked | named)
    ]
    assert not unasked, f"Another package brings these today and may stop; add them to dependencies: {unasked}"


def test_image_leaves_out_what_only_development_needs() -> None:
    extras = _project()["optional-dependencies"]
    asked = {_name(line) for line in _project()["dependencies"]}

    unwanted = {_name(line) for extra in ("dev", "embedded", "build") for line in extras[extra]} - asked

    assert not unwanted & _versions("requirements.runtime.lock").keys()


def test_image_copies_files_that_are_there_and_not_ignored() -> None:
    kept = {line[1:] for line in _read(".dockerignore").splitlines() if line.startswith("!")}

    copied = [
        source
        for line in _instructions()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    ]

    assert copied
    assert not [source for source in copied if not (ROOT / source).exists()], "The Dockerfile copies what is not there."
    assert not set(copied) - kept, "The Dockerfile copies what .dockerignore leaves out."


def test_image_runs_as_a_numbered_user_without_a_shell() -> None:
    last = [line for line in _instructions() if line.startswith(("FROM", "USER", "ENTRYPOINT"))][-2:]

    assert last[0] == "USER 10001:10001"
    assert last[1] == 'ENTRYPOINT ["surefoot"]'
    assert _project()["scripts"]["surefoot"] == "app.cli.main:main"


@pytest.mark.parametrize("command", OURS)
def test_command_of_the_image_exists_when_asked_for_help(command: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "app.cli.main", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert asked.returncode == 0, asked.stderr
    assert command in asked.stdout


def test_compose_names_only_settings_that_exist() -> None:
    known = {f"SUREFOOT_{name}".upper() for name in Settings.model_fields}
    text = _read("docker-compose.yml") + _read("Dockerfile")
    # Of the compose file itself, not of the program:
    own = {"SUREFOOT_VERSION"}

    unknown = set(re.findall(r"SUREFOOT_[A-Z_]+", text)) - known - own

    assert not unknown, f"Nobody reads these: {sorted(unknown)}"


def test_every_compose_service_is_locked_down() -> None:
    for name, service in _services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert name in OURS or service["user"] not in ("root", "0"), name


def test_every_lasting_compose_service_can_say_whether_it_is_well() -> None:
    for name, service in _services().items():
        if name == ONE_SHOT:
            assert service["restart"] == "no"
            continue
        check = service["healthcheck"]["test"]
        assert check[0] == "CMD", f"{name}: a shell in a health check hides its exit code"
        if check[1] == "python":
            ast.parse(check[3])


def test_compose_starts_migrations_first_and_names_only_services_that_exist() -> None:
    services = _services()

    for name in ("api", "worker"):
        assert services[name]["depends_on"][ONE_SHOT] == {"condition": "service_completed_successfully"}
    assert {needed for service in services.values() for needed in service.get("depends_on", {})} <= services.keys()


def test_compose_redis_refuses_instead_of_forgetting() -> None:
    command = _services()["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_every_make_target_is_explained_in_help() -> None:
    text = _read("Makefile")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))

    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert targets == {line.split()[1] for line in shown.splitlines()}


def test_ci_sets_up_checks_and_tests_with_all_tests_last() -> None:
    script = [line for line in _read(".ci/run").splitlines() if line.startswith("make ")]

    wanted = ["make setup", "make check", "make races", "make worst-model", "make test"]
    assert script == wanted, "The last line CI sees must be pytest's own count."
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "set -euo pipefail" in _read(".ci/run")


@cache
def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _versions(lock: str) -> dict[str, str]:
    return {found["name"]: found["version"] for found in LOCKED.finditer(_read(lock))}


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(_read("pyproject.toml"))["project"]
    return project


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _instructions() -> list[str]:
    joined = _read("Dockerfile").replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(_read("docker-compose.yml"))["services"]
    return services
