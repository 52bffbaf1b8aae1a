"""Tables for the terminal."""

from __future__ import annotations

from sigconv import text


def test_table():
    assert text.table({"a": "<", "long": ">", "": "<"}, [["xyz", "1", ""], ["", "12345", "!"]]) == [
        "a     long",
        "---  -----  -",
        "xyz      1",
        "     12345  !",
    ]


def test_a_table_without_rows_is_its_header():
    assert text.table({"a": "<", "b": ">"}, []) == ["a  b", "-  -"]


def test_long_names_keep_their_end():
    name = "/encoder/blocks.11/attention/MatMul_output_0_quantized"
    assert text.short(name) == "…" + name[-39:]
    assert text.short(name[-40:]) == name[-40:]


def test_sizes():
    assert [text.sizes(s) for s in ((), (3,), (1, 0, 2))] == ["scalar", "3", "1x0x2"]
