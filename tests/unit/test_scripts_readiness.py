"""Whether what was deployed answers, and what is told of a failure."""

import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from ray._common.utils import get_default_ray_temp_dir
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview
from ray_environment import StartError
from readiness import all_run, is_ready, reason, wait_until_ready


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1


class Nested(BaseModel):
    inner: Settings


def application(
    status: ApplicationStatus, message: str = "", deployments: Mapping[str, str] | None = None
) -> ApplicationStatusOverview:
    """One with deployments that failed, each with its message."""
    failed = {
        name: DeploymentStatusOverview(
            status=DeploymentStatus.DEPLOY_FAILED,
            status_trigger=DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
            replica_states={},
            message=told,
        )
        for name, told in (deployments or {}).items()
    }
    return ApplicationStatusOverview(status, message, last_deployed_time_s=0, deployments=failed)


def traceback(values: Mapping[str, object]) -> str:
    """What Ray tells of a builder or a replica that refuses these."""
    with pytest.raises(ValidationError) as caught:
        Nested.model_validate(values)
    return f'Traceback (most recent call last):\n  File "x.py", line 1\npydantic.ValidationError: {caught.value}\n'


class Prefixed(BaseHTTPRequestHandler):
    """A service under a prefix."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/support/healthz/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def prefixed() -> Iterator[str]:
    """Its host and port."""
    with HTTPServer(("127.0.0.1", 0), Prefixed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_ready_are_as_many_applications_as_the_file_has() -> None:
    def known(*states: ApplicationStatus) -> dict[str, ApplicationStatusOverview]:
        return {f"application {i}": application(state) for i, state in enumerate(states)}

    runs, starts = ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING
    assert all_run(known(runs), 1)
    assert all_run(known(runs, runs, runs), 3)
    assert not all_run(known(runs, runs), 3)
    assert not all_run(known(runs, starts), 2)


def test_ready_is_who_says_so_under_the_prefix(prefixed: str) -> None:
    assert is_ready(f"{prefixed}/support")
    assert not is_ready(prefixed)


def test_a_proxy_of_the_environment_is_passed_by(prefixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert is_ready(f"{prefixed}/support")


def test_nobody_is_asked_without_an_address() -> None:
    assert is_ready(None)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"inner": {"siez": "s3cret"}}, "inner.siez: Extra inputs are not permitted"),
        ({"inner": {"size": "s3cret"}},
         "inner.size: Input should be a valid integer, unable to parse string as an integer"),
    ],
)  # fmt: skip
def test_the_reason_names_the_field_and_not_the_value(values: Mapping[str, object], told: str) -> None:
    assert reason(application(ApplicationStatus.DEPLOY_FAILED, traceback(values))) == told


def test_the_reason_is_the_end_of_any_other_traceback() -> None:
    message = 'Traceback (most recent call last):\n  File "x.py", line 1\nBundleError: text.onnx is altered\n'
    assert reason(application(ApplicationStatus.DEPLOY_FAILED, message)) == "BundleError: text.onnx is altered"


def test_the_reason_of_a_deployment_goes_before_its_name() -> None:
    failed = application(
        ApplicationStatus.DEPLOY_FAILED,
        "Failed to update the deployments ['Ingress'].",
        {"Ingress": traceback({"inner": {"siez": 2}})},
    )
    assert reason(failed) == "inner.siez: Extra inputs are not permitted"


def test_without_a_message_the_reason_is_the_status() -> None:
    assert reason(application(ApplicationStatus.DEPLOY_FAILED)) == "DEPLOY_FAILED"


def test_who_is_never_ready_is_told_with_the_folder_that_ray_logs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert get_default_ray_temp_dir() == f"{tmp_path}/ray"  # type: ignore[no-untyped-call]
    with pytest.raises(StartError, match=re.escape(f"logs: {tmp_path}/ray/session_latest/logs/serve")):
        wait_until_ready(None, 1, print, lambda seconds: None, timeout_s=0)
