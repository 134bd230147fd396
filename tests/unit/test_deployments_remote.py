"""A stage that is a deployment: over its links, and through Ray's router where they lead nowhere."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.link_server import LinkServer
from deployments.links import Links
from deployments.protocol import DependencyError
from deployments.remote import ELSEWHERE_S, Remote, WhenDown
from tests.unit.gate import Gate
from tests.unit.virtual_time import run


class Router:
    """What of a handle a stage's caller uses."""

    deployment_name = "Classifier"

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.asked = 0
        self.answer = answer

    async def remote(self, batch: Any) -> Any:
        self.asked += 1
        return await self.answer(batch)


class DownLinks(Links):
    """The last replica of this node has just died."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"), "*", restart_s=1e9)
        self._note_crash()


def remote(router: Router, links: Links | None, when_down: WhenDown = "try") -> Remote:
    return Remote(cast("DeploymentHandle[Any]", router), links, when_down)


async def elsewhere(batch: str) -> str:
    return f"{batch} on another node"


async def nowhere(batch: str) -> str:
    await asyncio.sleep(3600)
    return batch


async def test_a_replica_on_another_node_answers_when_the_last_one_here_has_died() -> None:
    stage = remote(Router(elsewhere), DownLinks())
    assert [await stage("hello") for _ in range(3)] == ["hello on another node"] * 3


def test_without_another_replica_one_batch_a_second_finds_out_and_the_others_do_not_wait() -> None:
    router = Router(nowhere)
    stage = remote(router, DownLinks())

    async def three() -> list[float]:
        return [await failed_after(stage) for _ in range(3)]

    assert run(three()) == [pytest.approx(ELSEWHERE_S), 0.0, 0.0]
    assert router.asked == 1


def test_a_replica_that_stays_away_is_waited_for_no_longer_than_one_that_has_just_died() -> None:
    router, links = Router(nowhere), DownLinks()
    stage = remote(router, links)

    async def four() -> list[float]:
        failed = [await failed_after(stage)]
        links._restart_s = 0.0
        return [*failed, *[await failed_after(stage) for _ in range(3)]]

    assert run(four()) == [pytest.approx(ELSEWHERE_S), 0.0, 0.0, 0.0]


def test_once_the_router_has_answered_it_is_waited_for() -> None:
    async def slowly(batch: str) -> str:
        await asyncio.sleep(10 * ELSEWHERE_S)
        return f"{batch} at last"

    router, links = Router(elsewhere), DownLinks()
    stage = remote(router, links)

    async def answers() -> list[str]:
        first = await stage("hello")
        links._restart_s, router.answer = 0.0, slowly
        return [first, *await asyncio.gather(stage("hello"), stage("hello"))]

    assert run(answers()) == ["hello on another node", "hello at last", "hello at last"]


async def failed_after(stage: Remote) -> float:
    """Seconds until a batch has failed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DependencyError, match="Classifier: its replica has died or hangs"):
        await stage("hello")
    return loop.time() - began


async def test_a_stage_that_the_caller_can_do_without_fails_at_once() -> None:
    router = Router(elsewhere)
    with pytest.raises(DependencyError, match="Classifier: its replica has died or hangs"):
        await remote(router, DownLinks(), "fail")("hello")
    assert router.asked == 0


@pytest.mark.parametrize("others", [False, True])
async def test_the_router_is_waited_for_only_while_a_replica_lives(others: bool) -> None:
    """It would wait for the next one, and the caller can do without."""

    class Busy(Links):
        down = property(lambda self: not others and super().down)

    gate: Gate[str, str] = Gate()
    links = Busy(Path("/nonexistent"), "*", restart_s=1e9)
    call = asyncio.ensure_future(remote(Router(gate), links, "fail")("hello"))
    held = await gate.next()
    links._note_crash()
    if others:
        held.answer.set_result("hello from the router")
        assert await call == "hello from the router"
    else:
        with pytest.raises(DependencyError, match="Classifier: its replica has died or hangs"):
            await call
        assert held.answer.cancelled()


async def test_what_nothing_can_replace_waits_for_the_router() -> None:
    assert await remote(Router(elsewhere), DownLinks(), "wait")("hello") == "hello on another node"


@pytest.mark.parametrize("error", [RayServeException("no"), ActorDiedError()])
async def test_a_router_that_refuses_is_a_dependency_error(error: Exception) -> None:
    async def refuse(batch: str) -> str:
        raise error

    stage = remote(Router(refuse), None)
    with pytest.raises(DependencyError, match=f"Classifier: {type(error).__name__}"):
        await stage("hello")
    assert stage.counts()["stage_calls_total", "way", "router"] == 1


async def test_what_a_stage_raises_behind_the_router_keeps_its_type() -> None:
    ray_s: Any = RayTaskError

    async def raises(batch: str) -> str:
        raise ray_s("call", "in the stage", ValueError()).as_instanceof_cause()

    with pytest.raises(ValueError, match="in the stage"):
        await remote(Router(raises), None)("hello")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As private as links want it."""
    tmp_path.chmod(0o700)
    return tmp_path


async def test_a_link_is_preferred(folder: Path) -> None:
    async def here(batch: str) -> str:
        return f"{batch} here"

    server = LinkServer(here, folder / "x.1.sock")
    await server.start()
    links = Links(folder, "x.*.sock")
    await links.refresh()
    stage = remote(Router(elsewhere), links)
    assert await stage("hello") == "hello here"
    assert stage.counts()["stage_calls_total", "way", "link"] == 1
    links.close()
    server.close()


async def test_a_replica_that_is_back_and_leaves_in_order_is_followed_by_the_router(folder: Path) -> None:
    """What failed while it was away says nothing about those that take its place."""

    async def refuse(batch: str) -> str:
        raise RayServeException("no")

    async def here(batch: str) -> str:
        return f"{batch} here"

    router, links = Router(refuse), Links(folder, "x.*.sock")
    stage, server = remote(router, links), LinkServer(here, folder / "x.1.sock")
    links._note_crash()
    await failed_after(stage)
    await server.start()
    await links.refresh()
    answers = [await stage("hello")]
    server.close()
    links.close()
    links._crashed_at, router.answer = -math.inf, elsewhere
    answers += await asyncio.gather(stage("hello"), stage("hello"))
    assert answers == ["hello here", "hello on another node", "hello on another node"]
