"""The work of a batch: what a search finds and leaves out, and what a manifest may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.batches import write_grey
from vmkla.archive.batch import shard_of
from vmkla.archive.work import Entry, find_work, read_manifest
from vmkla.errors import BadInputError, UsageError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def ids(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.id, entry.kind) for entry in entries]


def test_videos_and_folders_of_images_are_found(tmp_path: Path) -> None:
    archive = make(
        tmp_path / "archive", "b.MP4", "a/x.mkv", "a/frames/1.png", "a/frames/2.jpg", "a/frames/more/3.png",
        "a/notes.txt", ".hidden/y.mp4", "a/.z.mp4",
    )  # fmt: skip
    work = find_work([archive], tmp_path / "out")
    assert ids(work.entries) == [
        ("b.MP4", "video"),
        ("a/x.mkv", "video"),
        ("a/frames", "images"),
        ("a/frames/more", "images"),
    ]
    assert work.notes == ["left out: 1 files that are neither videos nor images"]


def test_outputs_of_earlier_runs_are_left_out(tmp_path: Path) -> None:
    archive = make(
        tmp_path, "x.mp4", "out/.batch/settings.json", "out/results/k/overlay.mp4", "run/report.json",
        "run/frames.jsonl", "run/overlay.mp4", "other/.batch/settings.json", "other/results/k/overlay.mp4",
    )  # fmt: skip
    work = find_work([archive], tmp_path / "out")
    assert ids(work.entries) == [("x.mp4", "video")]
    assert work.notes == ["left out: 2 folders with outputs of earlier runs"]


def test_a_place_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", "a.mp4", "deeper/b.mp4")
    (archive / "deeper" / "link.mp4").symlink_to(archive / "a.mp4")
    work = find_work([archive, archive / "a.mp4"], tmp_path / "out")
    assert [entry.path.name for entry in work.entries] == ["a.mp4", "b.mp4"]
    assert work.notes == ["2 sources were given twice, and count once"]


def test_equal_names_of_different_sources_become_their_places(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1", "a.mp4"), make(tmp_path / "2", "a.mp4")
    work = find_work([first / "a.mp4", second / "a.mp4"], tmp_path / "out")
    assert [entry.id for entry in work.entries] == [str(first / "a.mp4"), str(second / "a.mp4")]
    assert [entry.id for entry in find_work([first, second], tmp_path).entries] == ["1/a.mp4", "2/a.mp4"]


def test_an_empty_archive_and_missing_sources_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no video"):
        find_work([make(tmp_path / "archive", "notes.txt")], tmp_path / "out")
    with pytest.raises(BadInputError, match=r"no file or folder .*one, .*two"):
        find_work([tmp_path / "one", tmp_path / "two"], tmp_path / "out")


def test_a_manifest(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "odd.suffix", "frames/deeper/1.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        'site, source ,id\nx,a.mp4,first\ny,odd.suffix,\nz,frames,"third, of z"\n', encoding="utf-8-sig"
    )
    work = read_manifest(manifest)
    assert ids(work.entries) == [("first", "video"), ("odd.suffix", "video"), ("third, of z", "images")]
    assert work.entries[2].deeper and work.entries[0].path == tmp_path / "a.mp4"


def test_a_manifest_lists_all_its_problems_at_once(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text("source,id\na.mp4,one\nb.mp4,one\ngone.mp4,two\n,three\n")
    with pytest.raises(BadInputError) as caught:
        read_manifest(manifest)
    assert caught.value.message.splitlines()[1:] == [
        "  line 3: the id one is that of line 2 too",
        "  line 4: there is no file or folder gone.mp4",
        "  line 5: the source is empty",
    ]
    assert caught.value.exit_status == 3
    with pytest.raises(BadInputError) as caught:
        read_manifest(manifest, anonymous=True)
    assert "gone" not in caught.value.message and "one" not in caught.value.message.partition("\n")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,id\na.mp4,1\n", "no column 'source'; its columns are: path, id"),
        ("", "its columns are: none"),
        ("source\n", "has no row"),
        ('source\n"a', "not a CSV file"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_manifest(tmp_path / "list.csv")


def test_the_same_source_twice_in_a_manifest_counts_once(tmp_path: Path) -> None:
    write_grey(tmp_path / "a", 10)
    (tmp_path / "list.csv").write_text("source\na\na\n./a\n")
    work = read_manifest(tmp_path / "list.csv")
    assert ids(work.entries) == [("a", "images")]
    assert work.notes == ["2 sources were given twice, and count once"]


def test_shards_share_all_entries_and_stay_when_others_are_added() -> None:
    entries = [Entry(f"{number}.mp4", Path(f"{number}.mp4"), "video") for number in range(400)]
    shards = [shard_of(entries, index, 7) for index in range(7)]
    assert sorted(entry.id for shard in shards for entry in shard) == sorted(entry.id for entry in entries)
    assert min(map(len, shards)) > 30
    assert set(shard_of(entries[:200], 3, 7)) <= set(shards[3])
    with pytest.raises(UsageError, match="no shard 7 of 7"):
        shard_of(entries, 7, 7)
