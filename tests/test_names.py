"""What sources are called: without folders, or by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vmkla.errors import BadInputError
from vmkla.names import Names, given_names, joint_digest, pseudonyms, without_folder


def test_the_longest_name_goes_first_and_only_whole_words_go() -> None:
    names = Names({"/p/doe": "FOLDER", "/p/doe/a.png": "ab12", "in": "the source", "a.png": "ab12"})
    assert (
        names.hide("/p/doe/a.png in /p/doe, /p/doe2, beginning")
        == "ab12 the source FOLDER, /p/doe2, beginning"
    )
    assert names.hide("a\\1 \\g<0> '/p/doe'") == "a\\1 \\g<0> 'FOLDER'"
    assert names.also({"x1": r"\1"}).hide("x1 in") == r"\1 the source"
    assert Names({"it's\n": "x"}).hide(repr("it's\n")) == '"x"'


def test_plain_values_are_gone_through() -> None:
    names = Names({"/p/doe": "FOLDER"})
    assert names.hide_in({"/p/doe": [1, None, ("x /p/doe", Path("/p/doe/a"))]}) == {
        "/p/doe": [1, None, ["x FOLDER", "FOLDER/a"]]
    }


def test_errors_are_renamed_with_all_that_caused_them() -> None:
    names = Names({"/p/doe.mp4": "ab12"})
    with pytest.raises(BadInputError) as caught, names.in_errors():
        try:
            raise FileNotFoundError("/p/doe.mp4")
        except OSError as error:
            raise BadInputError("no /p/doe.mp4", hint="see /p/doe.mp4") from error
    assert str(caught.value) == "no ab12\nsee ab12"
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    with pytest.raises(RuntimeError, match="OSError: ab12") as other, names.in_errors():
        raise OSError("/p/doe.mp4")
    assert other.value.__cause__ is None and other.value.__suppress_context__


def test_equal_files_get_numbers_and_unreadable_ones_too() -> None:
    digest, other = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    names = pseudonyms([digest, other, None, digest, None, digest])
    assert names == [
        digest[:12], other[:12], "unreadable", f"{digest[:12]}-2", "unreadable-2", f"{digest[:12]}-3"
    ]  # fmt: skip
    assert joint_digest([digest, other]) == joint_digest([other, digest]) != joint_digest([digest])


def test_a_file_keeps_its_name_and_loses_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "doe"
    folder.mkdir()
    names = without_folder(folder)
    assert names.hide(f"{folder}/deeper/a.png in {folder}") == "deeper/a.png in doe"
    monkeypatch.chdir(folder)
    assert without_folder(Path(".")).hide(f"{folder}/a.png: 1.5") == "a.png: 1.5"
    assert without_folder(Path("../clip.mp4")).hide("../clip.mp4") == "clip.mp4"


def test_what_was_given_is_hidden_before_it_is_known(tmp_path: Path) -> None:
    names = given_names([f"{tmp_path}/doe.mp4", "."])
    assert names.hide(f"no {tmp_path}/doe.mp4, no doe.mp4. 1.5") == "no the source, no the source. 1.5"
