from concurrent.futures import ThreadPoolExecutor
from string import hexdigits

from deployments.identifiers import Identifiers


def test_they_are_all_different_also_from_several_threads() -> None:
    new = Identifiers()
    with ThreadPoolExecutor(4) as threads:
        made = [*threads.map(lambda _: new(), range(5_000))]
    assert len(set(made)) == len(made)
    assert {len(identifier) for identifier in made} == {32}
    assert set().union(*made) <= set(hexdigits.lower())
