"""The image's files exist and reach its build; the unit starts what there is."""

import re
from fnmatch import fnmatch

import yaml

from tests.unit.exported_metrics import ROOT

DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()
UNIT = (ROOT / "deploy" / "systemd" / "switchboard.service").read_text()


def sent() -> set[str]:
    """Names at the top of the checkout that reach the build."""
    return {line[1:] for line in IGNORED if line.startswith("!")}


def test_only_what_is_listed_is_sent() -> None:
    assert next(line for line in IGNORED if not line.startswith(("#", "!"))) == "*"
    assert {name for name in sent() if not (ROOT / name).exists()} == set()
    assert not sent() & {".git", ".run", ".venv", "tests"}


def test_what_the_package_and_the_service_need_is_sent() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"^packages = \[(.*)\]", project, re.MULTILINE)
    modules = re.search(r"^py-modules = \[(.*)\]", project, re.MULTILINE)
    licenses = re.search(r"^license-files = \[(.*)\]", project, re.MULTILINE)
    assert packages is not None
    assert modules is not None
    assert licenses is not None
    needed = {*re.findall(r'"(\S+?)"', packages[1]), *re.findall(r'"(\S+?)"', licenses[1])}
    needed |= {f"{name}.py" for name in re.findall(r'"(\S+?)"', modules[1])}
    needed |= {"README.md", "pyproject.toml", "bundles", "requirements", "scripts", "serve_config.yaml"}
    assert needed <= sent()
    hidden = [line for line in IGNORED if line and line[0] not in "#!" and line != "*"]
    bundled = [str(path.relative_to(ROOT)) for path in (ROOT / "bundles").rglob("[!.]*.*")]
    assert bundled
    assert [path for path in bundled for line in hidden if fnmatch(path, line)] == []


def test_the_images_base_has_the_python_that_setup_looks_for_first() -> None:
    pythons = re.search(r"for candidate in (\S+)", (ROOT / "scripts" / "setup").read_text())
    assert pythons is not None
    assert DOCKERFILE.count(f"{pythons[1]}") >= 3
    assert "requirements/$SET.txt" in DOCKERFILE
    sets = re.findall(r"^ARG SET=(\w+)|SET=(\w+) adds", DOCKERFILE, re.MULTILINE)
    assert [name for pair in sets for name in pair if name and not (ROOT / f"requirements/{name}.txt").exists()] == []


def test_the_container_answers_others_with_the_same_configuration() -> None:
    """What the Dockerfile's sed does: nothing but the address changes."""
    command = re.search(r"sed 's/(.+?)/(.+?)/' serve_config.yaml > (\S+)", DOCKERFILE)
    assert command is not None
    own = (ROOT / "serve_config.yaml").read_text()
    changed = re.sub(command[1], command[2], own, flags=re.MULTILINE)
    before, after = yaml.safe_load(own), yaml.safe_load(changed)
    assert after.pop("http_options") == before.pop("http_options") | {"host": "0.0.0.0"}
    assert after == before
    assert f'"--config", "{command[3]}"' in DOCKERFILE


def test_it_runs_as_a_user_without_rights_and_is_asked_whether_it_is_ready() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE) == re.findall(r"--uid (\d+)", DOCKERFILE)
    assert "/healthz/ready" in DOCKERFILE
    assert '"/healthz/ready"' in (ROOT / "deployments" / "ingress.py").read_text()


def test_the_unit_lets_the_service_end_in_order() -> None:
    assert re.findall(r"^ExecStart=/opt/switchboard/(\S+)", UNIT, re.MULTILINE) == ["scripts/serve"]
    assert {"KillMode=mixed", "Restart=on-failure", "StateDirectory=switchboard"} <= set(UNIT.splitlines())
