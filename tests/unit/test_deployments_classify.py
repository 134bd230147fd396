import asyncio
import itertools
import threading
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.classify import ClassifyStage, PreprocessStage, VersionTable, pieces
from deployments.protocol import TextBatch, TokenBatch
from features.preprocess import Ids
from models.bundle import Bundle, BundleError
from models.classifier import TextClassifier
from models.context import Floats
from models.registry import Registry
from tests.unit.tokens import tokens


class Loader:
    """Loads names of versions, in capitals; holds while `go` is not set, fails while `failure` is."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.failure: Exception | None = None

    def __call__(self, version: str) -> str:
        self.loads.append(version)
        if not self.go.wait(60):
            raise TimeoutError("the event loop did not let go")
        if self.failure is not None:
            raise self.failure
        return version.upper()


@pytest.mark.parametrize("pause", [1, 2, 3])
async def test_a_version_is_loaded_once_whenever_callers_come(pause: int) -> None:
    """One more caller after every `pause` turns of the loop; over many versions one comes just before each result."""
    load = Loader()
    table = VersionTable(load, keep=100)
    loop = asyncio.get_running_loop()
    versions = [f"v{i}" for i in range(25)]
    for version in versions:
        first = asyncio.ensure_future(table.get(version))
        callers = [first]
        for turn in itertools.count():
            if first.done():
                break
            if turn % pause == 0:
                callers.append(asyncio.ensure_future(table.get(version)))
            last = loop.create_future()
            loop.call_later(0, last.set_result, None)  # timers come last in a turn
            await last
        assert set(await asyncio.gather(*callers)) == {version.upper()}
    assert load.loads == versions


async def test_loading_one_version_holds_up_no_other() -> None:
    load = Loader()
    table = VersionTable(load)
    assert await table.get("a") == "A"
    load.go.clear()
    slow = asyncio.ensure_future(table.get("b"))
    assert await table.get("a") == "A"
    assert not slow.done()
    load.go.set()
    assert await slow == "B"


async def test_a_preloaded_version_is_there() -> None:
    load = Loader()
    table = VersionTable(load)
    table.preload("a")
    assert table.versions == ("a",)
    assert await table.get("a") == "A"
    assert load.loads == ["a"]


async def test_the_least_recently_used_version_is_dropped() -> None:
    load = Loader()
    table = VersionTable(load, keep=2)
    for version in ("a", "b", "a", "c"):
        assert await table.get(version) == version.upper()
    assert table.versions == ("a", "c")
    await table.get("b")
    assert load.loads == ["a", "b", "c", "b"]


async def test_a_failed_load_reaches_its_callers_and_is_tried_again() -> None:
    load = Loader()
    table = VersionTable(load)
    load.failure = BundleError("text.onnx: missing")
    results = tuple(await asyncio.gather(table.get("a"), table.get("a"), return_exceptions=True))
    assert results == (load.failure, load.failure)
    assert load.loads == ["a"]
    load.failure = None
    assert await table.get("a") == "A"


async def test_a_load_goes_on_when_its_callers_leave() -> None:
    load = Loader()
    load.go.clear()
    table = VersionTable(load)
    first, second = (asyncio.ensure_future(table.get("a")) for _ in range(2))
    asyncio.get_running_loop().call_soon(first.cancel)
    with pytest.raises(asyncio.CancelledError):
        await first
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    load.go.set()
    assert await table.get("a") == "A"
    assert load.loads == ["a"]


async def test_the_stages_give_what_the_bundle_gives(bundle: Bundle, classifier: TextClassifier) -> None:
    texts = ["my card was declined", "", "how do I repay my loan early? " * 40]
    preprocess = PreprocessStage(lambda version: Registry().load(version).preprocessor)
    classify = ClassifyStage({bundle.version: classifier}.__getitem__)
    made = await preprocess(TextBatch(bundle.version, texts))
    assert made.version == bundle.version
    assert [row.tolist() for row in made.rows()] == [row.tolist() for row in bundle.preprocessor.tokens(texts)]
    batch = await classify(made)
    assert batch.version == bundle.version
    assert batch.logits.shape == (3, bundle.manifest.outputs)
    assert np.array_equal(batch.logits, classifier(made.rows()))
    assert batch.cached.tolist() == [False] * 3
    assert set(batch.milliseconds) == {"inference"}


class Threads:
    """A classifier that notes which threads ask it, and waits there for `go`."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.started, self.go = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()
        self.go.set()

    def __call__(self, rows: list[Ids]) -> Floats:
        self.seen.append(threading.get_ident())
        self._loop.call_soon_threadsafe(self.started.set)
        if not self.go.wait(60):
            raise TimeoutError("the event loop did not let go")
        return np.zeros((len(rows), 2), dtype=np.float32)


def of_lengths(*lengths: int) -> TokenBatch:
    return tokens("v", *([1] * length for length in lengths))


async def test_few_tokens_stay_on_the_event_loop_and_many_leave_it() -> None:
    threads = Threads()
    classify = ClassifyStage(lambda version: cast(TextClassifier, threads), few_tokens=6)
    here = threading.get_ident()
    for lengths, inline in (((6,), True), ((7,), False), ((3, 3), True), ((3, 3, 1), False)):
        assert len((await classify(of_lengths(*lengths))).logits) == len(lengths)
        assert (threads.seen.pop() == here) == inline


@pytest.mark.parametrize("leaves", [False, True])
async def test_few_tokens_wait_their_turn_while_the_thread_works(leaves: bool) -> None:
    """Also when the caller that it works for leaves."""
    threads = Threads()
    classify = ClassifyStage(lambda version: cast(TextClassifier, threads), few_tokens=6)
    threads.go.clear()
    many = asyncio.ensure_future(classify(of_lengths(7)))
    await threads.started.wait()
    if leaves:
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
    few = asyncio.ensure_future(classify(of_lengths(1)))
    await asyncio.sleep(0)
    assert not few.done()
    threads.go.set()
    await few
    assert leaves or (await many).logits.shape == (1, 2)
    assert len(set(threads.seen)) == 1
    assert threading.get_ident() not in threads.seen


async def test_texts_whose_tokens_are_remembered_are_counted(bundle: Bundle) -> None:
    preprocess = PreprocessStage(lambda version: Registry().load(version).preprocessor)
    for texts in (["hello"], ["hello", "you"]):
        await preprocess(TextBatch(bundle.version, texts))
    assert preprocess.counts() == {"tokens_recalled_total": 1}


async def test_an_unknown_version_is_an_error_of_its_own() -> None:
    preprocess = PreprocessStage(lambda version: Registry().load(version).preprocessor)
    with pytest.raises(BundleError, match="no bundle 'atlantis'"):
        await preprocess(TextBatch("atlantis", ["hello"]))


@given(st.lists(st.text(max_size=9), max_size=9), st.integers(0, 20))
def test_pieces_hold_all_texts_in_order_and_few_characters_before_the_last(texts: list[str], characters: int) -> None:
    cut = list(pieces(texts, characters))
    assert [text for piece in cut for text in piece] == texts
    assert all(len(piece) > 0 and sum(map(len, piece[:-1])) <= characters for piece in cut)


async def test_texts_that_take_long_let_others_go_first() -> None:
    bundle = Registry().load("production")
    stage = PreprocessStage(lambda version: bundle.preprocessor)
    order: list[str] = []

    async def tokenise(name: str, texts: list[str]) -> list[Ids]:
        tokens = await stage(TextBatch(bundle.version, texts))
        order.append(name)
        return tokens.rows()

    long = ["\ufdfa" * 4000, "my card " * 100, "hi"]
    made, _ = await asyncio.gather(tokenise("long", long), tokenise("short", ["hello"]))
    assert order == ["short", "long"]
    assert [row.tolist() for row in made] == [row.tolist() for row in bundle.preprocessor.tokens(long)]
