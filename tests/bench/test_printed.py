"""What a program prints takes its place in a file, and nothing else's."""

from pathlib import Path

import pytest

from tests.bench.printed import END, begin_of, printed_in, put_into

PROGRAM, OTHER = "just bench http", "just bench ws"
BEGIN = begin_of(PROGRAM)


def test_text_takes_the_place_between_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    other = f"{begin_of(OTHER)}\ntheirs\n{END}\n"
    file.write_text(f"{other}before\n{BEGIN}\nold\n{END}\nafter\n{other}")
    put_into(file, PROGRAM, "| new |\n")
    put_into(file, PROGRAM, "# HTTP\n\n| newer |\n")
    assert file.read_text() == f"{other}before\n{BEGIN}\n\n### HTTP\n\n| newer |\n\n{END}\nafter\n{other}"
    assert printed_in(file, PROGRAM).strip() == "### HTTP\n\n| newer |"


def test_file_without_lines_is_the_text_alone(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    assert printed_in(file, PROGRAM) == ""
    put_into(file, PROGRAM, "| old |\n")
    put_into(file, PROGRAM, "| new |\n")
    assert file.read_text() == printed_in(file, PROGRAM) == "| new |\n"


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}\n{BEGIN}", f"{begin_of(OTHER)}\ntheirs\n{END}\n"])
def test_file_without_a_whole_place_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(ValueError, match="not both"):
        put_into(file, PROGRAM, "new")
    assert file.read_text() == text
