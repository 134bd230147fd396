"""Labelled chats: what is read, what is refused and where, and how it is split."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data import OUT_OF_SCOPE, DataError, Example, Split, digest, labels, load, split
from models.duplicates import similar_pairs

words = st.lists(st.sampled_from("abcde"), max_size=5).map(" ".join) | st.text(max_size=5) | st.just("\ud800")

DEEP = "[" * 50_000 + "]" * 50_000
TWICE = '{""a"": 1, ""a"": 2}'


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=3), leaves, max_size=3)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_texts_may_hold_newlines_commas_and_quotes(tmp_path: Path) -> None:
    content = 'text,product\r\n"it got\ndeclined, ""again""",credit_card\r\nplain,loans\r\n'
    assert load(write(tmp_path, "chats.csv", content)) == [
        Example('it got\ndeclined, "again"', "credit_card"),
        Example("plain", "loans"),
    ]


def test_blanks_round_a_label_do_not_make_another_one(tmp_path: Path) -> None:
    path = write(tmp_path, "chats.csv", "text,product\nhi,loans\nho, loans \nhm, oos\n")
    assert {example.product for example in load(path)} == {"loans", OUT_OF_SCOPE}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,product\nhi, my card is gone,credit_card\n", "a.csv:2: more fields than the header has"),
        ("a.csv", 'text,product\n"it"s gone",loans\n', "a.csv:2: not CSV"),
        ("a.csv", 'text,product\n"two\nlines",loans\nhi,loans,more\n', "a.csv:4: more fields"),
        ("a.csv", "text,product\nhi,  \n", "a.csv:2: no 'product'"),
        ("a.tsv", "text\tproduct\n", r"a.tsv: expected a file that ends in .csv, .jsonl, .json"),
    ],
)
def test_what_would_become_a_label_by_mistake_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, name, content))


def test_two_columns_of_banking77(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", "text,category\nWhere is my card?,card_arrival\n")
    assert load(path) == [Example("Where is my card?", "card_arrival")]


def test_byte_order_mark_of_a_spreadsheet(tmp_path: Path) -> None:
    assert load(write(tmp_path, "a.csv", b"\xef\xbb\xbftext,product\nhi,loans\n")) == [Example("hi", "loans")]


@pytest.mark.parametrize("screens", ['"[""home"", ""card_limit""]"', "home|card_limit"])
def test_context_columns_of_csv(tmp_path: Path, screens: str) -> None:
    content = f'text,product,recent_screens,product_usage_60d\nno,loans,{screens},"{{""loans"": 2}}"\nyes,loans,,\n'
    with_context, without = load(write(tmp_path, "chats.csv", content))
    assert with_context == Example("no", "loans", ("home", "card_limit"), {"loans": 2})
    assert with_context.has_context
    assert without == Example("yes", "loans")
    assert not without.has_context


def test_jsonl_with_context_and_blank_lines(tmp_path: Path) -> None:
    content = (
        '{"text": "a", "product": "loans", "recent_screens": ["home"], "extra": 1}\n\n{"text": "b", "category": "c"}\n'
    )
    assert load(write(tmp_path, "chats.jsonl", content)) == [Example("a", "loans", ("home",)), Example("b", "c")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,product\na,loans\nb,\n"),
        ("a.csv", "text,category\na,weather\nb,oos\n"),
        ("a.jsonl", '{"text": "a", "product": "loans"}\n{"text": "b"}\n'),
        ("a.json", '{"train": [["a", "loans"]], "oos_train": [["b", "oos"]]}'),
    ],
)
def test_a_label_for_all_rows_counts_more_than_those_of_the_file(tmp_path: Path, name: str, content: str) -> None:
    wanted = [Example("a", OUT_OF_SCOPE), Example("b", OUT_OF_SCOPE)]
    assert load(write(tmp_path, name, content), OUT_OF_SCOPE) == load(tmp_path / name, "oos") == wanted


def test_folder_is_all_its_jsonl_files_in_order(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", '{"text": "b", "product": "y"}\n')
    write(tmp_path, "a.jsonl", '{"text": "a", "product": "x"}\n')
    write(tmp_path, "notes.txt", "no chats")
    examples = load(tmp_path)
    assert [e.text for e in examples] == ["a", "b"]
    assert labels([*examples, Example("c", OUT_OF_SCOPE)]) == ("x", "y")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "message,product\nhi,loans\n", "a.csv:2: column 'text'"),
        ("a.csv", "text,product\nhi,loans\nho\n", "a.csv:3: no 'product' or 'category'"),
        ("a.csv", "text,product,product_usage_60d\nhi,loans,many\n", "a.csv:2: column 'product_usage_60d'"),
        ("a.csv", 'text,product,recent_screens\nhi,loans,"[1"\n', "a.csv:2: column 'recent_screens'"),
        ("a.csv", f"text,product\nhi,loans\n{'x' * 200_000},loans\n", "a.csv:3: not CSV"),
        ("a.csv", b"text,product\nhi,loans\ncaf\xe9,loans\n", "a.csv:3: not UTF-8"),
        ("a.csv", "text,product\n", "a.csv: the file holds no rows"),
        ("a.jsonl", "", "a.jsonl: the file holds no rows"),
        ("a.jsonl", '{"text": "hi", "product": "x"}\n{"text": ', "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected an object, got list"),
        ("a.jsonl", '{"text": 5, "product": "x"}\n', "a.jsonl:1: column 'text'"),
        ("a.jsonl", '{"text": "hi"}\n', "a.jsonl:1: no 'product' or 'category'"),
        ("a.jsonl", '{"text": "hi", "product": "x", "recent_screens": 5}\n', "a.jsonl:1: column 'recent_screens'"),
        ("a.jsonl", '{"text": "hi", "product": "x", "product_usage_60d": [1]}\n', "1: column 'product_usage_60d'"),
        ("a.jsonl", '{"text": "hi", "product": "x", "product_usage_60d": {"x": Infinity}}\n', "'product_usage_60d'"),
        ("a.jsonl", '{"text": null, "product": "x"}\n', "a.jsonl:1: column 'text' is missing"),
        ("a.jsonl", '{"text": true, "product": "x"}\n', "a.jsonl:1: column 'text' is a boolean, expected a string"),
        ("a.jsonl", '{"text": "hi", "product": 3}\n', "a.jsonl:1: column 'product' is a number, expected a string"),
        ("a.jsonl", '{"text": "hi", "product": 0, "category": "x"}\n', "1: column 'product' is a number, expected"),
        ("a.jsonl", '{"text": "hi", "category": ["x"]}\n', "1: column 'category' is a list, expected a string"),
        (
            "a.jsonl",
            '{"text": "\\ud800", "product": "x"}\n',
            "a.jsonl:1: column 'text': not UTF-8: surrogates not allowed",
        ),
        ("a.jsonl", '{"text": "hi", "product": "x\\udfff"}\n', "a.jsonl:1: column 'product': not UTF-8"),
        ("a.jsonl", '{"text": "hi", "product": "x", "recent_screens": {"a": 1}}\n', "expected a list, got an object"),
        ("a.jsonl", '{"text": "hi", "product": "x"}\n' + DEEP + "\n", "a.jsonl:2: not JSON: nested too deeply"),
        ("a.jsonl", f'{{"text": "hi", "product": {"1" * 5000}}}\n', "a.jsonl:1: not JSON: "),
        ("a.json", DEEP, "a.json: not JSON: nested too deeply"),
        (
            "a.jsonl",
            '{"text": "a", "text": "b", "product": "x"}\n',
            "a.jsonl:1: not JSON: an object names 'text' more than once",
        ),
        (
            "a.jsonl",
            '{"text": "hi", "product": "x", "product_usage_60d": {"a": 1, "a": 2}}\n',
            "1: not JSON: an object names",
        ),
        ("a.csv", f'text,product,product_usage_60d\nhi,x,"{TWICE}"\n', "60d': an object names 'a' more than once"),
        ("a.json", '{"train": [], "train": []}', "a.json: not JSON: an object names 'train' more than once"),
        ("a.json", '{"train": [["hi", "\\ud800"]]}', "a.json: train[0]: column 'product': not UTF-8"),
        ("a.csv", f"text,product,recent_screens\nhi,loans,{DEEP}\n", "column 'recent_screens': nested too deeply"),
    ],
)
def test_unreadable_file_is_refused_by_file_row_and_column(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    with pytest.raises(DataError) as refused:
        load(write(tmp_path, name, content))
    assert str(refused.value).startswith(str(tmp_path / name))
    assert told in str(refused.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.just("\ud800"), nested, max_leaves=9))
def test_whatever_stands_in_a_column_is_read_or_refused_by_file_and_row(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    for column in ("text", "product", "category", "recent_screens", "product_usage_60d"):
        path.write_text(json.dumps({"text": "hi", "product": "x"} | {column: value}))
        rows, refused = [], ""
        try:
            rows = load(path)
        except DataError as error:
            refused = str(error)
        assert rows or refused.startswith(f"{path}:1: ")
        assert all(f"{row.text}{row.product}".encode() for row in rows)


@pytest.mark.parametrize("label", ['"product": null, "category": "x"', '"product": "", "category": "x"'])
def test_an_empty_product_leaves_it_to_the_category(tmp_path: Path, label: str) -> None:
    assert load(write(tmp_path, "a.jsonl", f'{{"text": "hi", {label}}}')) == [Example("hi", "x")]


def test_nothing_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        load(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"holds no \.jsonl file"):
        load(tmp_path)


def sides(parts: Split) -> dict[str, int]:
    """The part of each example by its product, which the tests below make unique."""
    return {e.product: side for side, part in enumerate((parts.train, parts.validation, parts.test)) for e in part}


@given(st.lists(words, max_size=30), st.randoms(use_true_random=False))
def test_split_is_complete_deterministic_and_independent_of_order(texts: list[str], rng: random.Random) -> None:
    examples = [Example(text, str(i)) for i, text in enumerate(texts)]
    parts = split(examples, 0.3, 0.3)
    together = [*parts.train, *parts.validation, *parts.test]
    assert sorted(e.product for e in together) == sorted(e.product for e in examples)
    shuffled = examples[:]
    rng.shuffle(shuffled)
    assert sides(split(shuffled, 0.3, 0.3)) == sides(parts)


@given(st.lists(words, max_size=30))
def test_no_near_duplicates_straddle_a_split(texts: list[str]) -> None:
    part = sides(split([Example(text, str(i)) for i, text in enumerate(texts)], 0.3, 0.3))
    assert all(part[str(i)] == part[str(j)] for i, j in similar_pairs(texts))


def test_split_has_the_wanted_shares() -> None:
    parts = split([Example(f"word{i} thing{i}", "x") for i in range(4000)], 0.1, 0.2)
    assert len(parts.validation) / 4000 == pytest.approx(0.1, abs=0.02)
    assert len(parts.test) / 4000 == pytest.approx(0.2, abs=0.02)


def test_digest_is_of_the_content_not_of_the_order() -> None:
    a, b = Example("a", "x", ("home",), {"x": 1, "y": 2}), Example("b", "x")
    assert digest([a, b]) == digest([b, Example("a", "x", ("home",), {"y": 2, "x": 1})])
    assert len({digest(rows) for rows in ([a], [a, b], [a, a], [b], [Example("b", "y")])}) == 5
