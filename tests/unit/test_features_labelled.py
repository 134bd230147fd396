"""Labelled files: what fits is read, what does not is named with its place."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.labelled import OUT_OF_SCOPE, Chat, Example, example_of, read_chats, read_labelled
from features.rows import DataError
from models.data import CORPUS, load

AT = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
ROW = {"text": "hi", "product": "loans", "user_id": "ana", "at": "2026-03-02T01:30:00Z"}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestChats:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("c.jsonl", lines(ROW | {"request_id": "r1", "topic": 3}, ROW)),
            ("c.jsonl", "\ufeff" + lines(ROW | {"request_id": "r1"}) + "\n  \n" + lines(ROW)),
            ("c.jsonl", lines(ROW | {"request_id": "r1", "at": "2026-03-01T22:30:00-03:00"}, ROW).rstrip()),
            ("c.csv", "text,product,user_id,at,request_id\nhi,loans,ana,2026-03-02T01:30:00Z,r1\n"
             "hi,loans,ana,2026-03-02T01:30:00Z,\n"),
            ("c.csv", "\ufeff,at,user_id,product,text,request_id\n0,2026-03-02T01:30:00Z,ana,loans,hi,r1\n"
             "1,2026-03-02T01:30:00Z,ana,loans,hi,\n"),
            ("C.CSV", "text,category,user_id,at,request_id\nhi, loans ,ana,2026-03-02T01:30:00Z,r1\n"
             "hi,loans,ana,2026-03-02T01:30:00Z\n"),
            ("c.JSONL", lines(ROW | {"product": " loans ", "request_id": "r1"},
             ROW | {"product": None, "category": "loans", "request_id": ""})),
        ],
    )  # fmt: skip
    def test_are_read(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert read_chats(tmp_path / name) == [Chat("hi", "loans", "ana", AT, "r1"), Chat("hi", "loans", "ana", AT)]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("c.jsonl", lines(ROW, ROW | {"at": "yesterday"}), r"c.jsonl:2: .*RFC3339.* - at `\$.at`"),
            ("c.jsonl", lines(ROW | {"at": "2026-03-02T01:30:00"}), r"c.jsonl:1: .*timezone.* - at `\$.at`"),
            ("c.jsonl", lines(ROW | {"at": "1969-01-01T00:00:00Z"}), r"c.jsonl:1: at: 1969-.* is not between"),
            ("c.jsonl", lines(ROW | {"text": 5}), "c.jsonl:1: column 'text' is a number, expected a string"),
            ("c.jsonl", lines(ROW | {"user_id": 5}), r"c.jsonl:1: Expected `str`, got `int` - at `\$.user_id`"),
            ("c.jsonl", lines(ROW | {"user_id": ""}), r"c.jsonl:1: .*length >= 1 - at `\$.user_id`"),
            (
                "c.jsonl",
                lines({"text": "hi"}),
                r"c.jsonl:1: no 'product' or 'category'; columns with a value: \['text'\]",
            ),
            ("c.jsonl", lines({"text": "hi", "product": "loans"}), r"c.jsonl:1: .*missing required field `user_id`"),
            ("c.jsonl", lines([1]), r"c.jsonl:1: expected an object, got list"),
            ("c.jsonl", lines(ROW) + "\n{", r"c.jsonl:3: not JSON: "),
            ("c.jsonl", lines(ROW | {"text": "\ud800"}), "c.jsonl:1: column 'text': not UTF-8: surrogates not allowed"),
            ("c.jsonl", lines(ROW | {"user_id": "\ud800"}), "c.jsonl:1: column 'user_id': not UTF-8: surrogates"),
            ("c.jsonl", "\n", r"c.jsonl: the file holds no rows"),
            ("c.csv", "text,product,user_id,at\n", r"c.csv: the file holds no rows"),
            ("c.csv", "text,user_id,at\nhi,ana,2026-03-02T01:30:00Z\n", "c.csv:2: no 'product' or 'category'"),
            ("c.csv", 'text,product\n"it"s gone",loans\n', "c.csv:2: not CSV: "),
            ("c.csv", "text,product,text\nhi,loans,ho\n", "c.csv:1: the header names column 'text' more than once$"),
            ("c.tsv", "text\tproduct\n", r"c.tsv: expected a file that ends in \.csv, \.jsonl$"),
            ("c.csv", "text,product\nhi,loans,more\n", r"c.csv:2: more fields than the header has"),
            ("d.jsonl", "", r"c.jsonl: no such file"),
        ],
    )
    def test_that_do_not_fit_are_named(self, tmp_path: Path, name: str, content: str, message: str) -> None:
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_chats(tmp_path / name.replace("d.", "c."))

    @pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
    def test_that_are_not_utf8_are_named(self, tmp_path: Path, name: str) -> None:
        header = b"" if name == "c.jsonl" else b"text,product,user_id,at\n"
        (tmp_path / name).write_bytes(header + b"\n" * 9_000 + b'"caf\xe9"\n')
        with pytest.raises(DataError, match=rf"{name}:{9_001 + bool(header)}: not UTF-8: "):
            read_chats(tmp_path / name)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(texts, min_size=1, max_size=5))
    def test_keep_any_text(self, tmp_path: Path, texts: list[str]) -> None:
        (tmp_path / "c.jsonl").write_text(lines(*(ROW | {"text": text} for text in texts)))
        assert [chat.text for chat in read_chats(tmp_path / "c.jsonl")] == texts
        with (tmp_path / "c.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ROW))
            writer.writeheader()
            writer.writerows(ROW | {"text": text} for text in texts)
        assert [chat.text for chat in read_chats(tmp_path / "c.csv")] == texts


class TestTrainingData:
    def test_is_read_as_training_reads_it(self) -> None:
        read = [row for _, row in read_labelled(CORPUS)]
        assert read == load(CORPUS)
        assert len(read) > 5000

    @pytest.mark.parametrize("screens", ["a|b", '"[""a"", ""b""]"'])
    def test_in_csv_has_lists_and_json(self, tmp_path: Path, screens: str) -> None:
        file = tmp_path / "data.csv"
        header = "text,category,recent_screens,product_usage_60d\n"
        file.write_text(f'{header}hi,oos,{screens},"{{""loans"": 3}}"\nho,loans,,\n')
        assert list(read_labelled(file)) == [
            (f"{file}:2", Example("hi", OUT_OF_SCOPE, ("a", "b"), {"loans": 3})),
            (f"{file}:3", Example("ho", "loans")),
        ]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "hi"}, "data.jsonl:1: no 'product' or 'category'"),
            ({"text": "hi", "product": "a", "product_usage_60d": {"loans": "x"}}, "1: column 'product_usage_60d': "),
            ({"text": "hi", "product": "a", "product_usage_60d": "{"}, "1: column 'product_usage_60d': "),
            ({"text": "hi", "product": "a", "product_usage_60d": {"\ud800": 1}}, "1: column 'product_usage_60d': "),
            *(
                ({"text": "hi", "product": "a", "product_usage_60d": {"b": 1, "loans": uses}}, f"1: {column}: {told}$")
                for column in ["column 'product_usage_60d'"]
                for uses, told in [
                    (True, "loans: expected a count, got true"),
                    (-5, "loans: expected a count, got -5"),
                    (-0.5, "loans: expected a count, got -0.5"),
                    (2.9, "loans: expected a count, got 2.9"),
                ]
            ),
            ({"text": "hi", "product": "a", "recent_screens": "[1]"}, "expected names, got a number$"),
            ({"text": "hi", "product": "a", "recent_screens": [None]}, "expected names, got null$"),
            ({"text": "hi", "product": "a", "recent_screens": ["\ud800"]}, "1: column 'recent_screens': .*surrogates"),
        ],
    )
    def test_that_does_not_fit_is_named(self, tmp_path: Path, row: dict[str, Any], message: str) -> None:
        (tmp_path / "data.jsonl").write_text(lines(row))
        with pytest.raises(DataError, match=message):
            list(read_labelled(tmp_path))

    @given(
        st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=3), st.integers(0, 3) | st.sampled_from([0.0, 2.0])
        )
    )
    def test_keeps_every_use_and_nothing_of_what_was_not_used(self, usage: dict[str, int]) -> None:
        example = example_of({"text": "hi", "product": "a", "product_usage_60d": usage}, "here:1")
        assert example.product_usage_60d == {product: uses for product, uses in usage.items() if uses}
        assert example.has_context == any(usage.values()) == Example("hi", "a", (), usage).has_context

    def test_of_an_empty_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no .jsonl file"):
            list(read_labelled(tmp_path))
