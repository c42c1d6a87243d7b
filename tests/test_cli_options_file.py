"""Options in a file: its words stand where it is named, and what is wrong with them is told with their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream_seg.cli import main
from stream_seg.cli.arguments import parse
from stream_seg.cli.options_file import MOST_BYTES
from tests.test_cli import failure, frames_in
from tests.test_readme import ROOT, blocks
from tests.tiny_models import batched_model


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of options that is named @o.txt."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "o.txt"


def test_the_words_of_a_file_stand_where_it_is_named_and_what_comes_later_wins(written: Path) -> None:
    text = "# cameras\r\n\r\na.mp4 b.mp4 # two\r\n--view boxes\r\n--stride\r\n  3\r\n-o -.jsonl --region -1,0,9,9\r\n"
    written.write_bytes(b"\xef\xbb\xbf" + text.encode())
    args = parse(["--view", "masks", "x.mp4", "@o.txt", "c.mp4", "--stride", "5", "-o", "d.mp4"])
    assert args.source == ["x.mp4", "a.mp4", "b.mp4", "c.mp4"]
    assert (args.view, args.stride, args.output) == ("boxes", 5, ["-.jsonl", "d.mp4"])
    assert [place.points for place in args.region] == [[(-1, 0), (9, 9)]]
    assert parse(["@o.txt", "@o.txt"]).source == ["a.mp4", "b.mp4"] * 2
    assert parse(["@o.txt", "--", "@o.txt"]).source == ["a.mp4", "b.mp4", "@o.txt"]
    assert parse(["./@o.txt"]).source == ["./@o.txt"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r"""a\ b.mp4 'c "d.mp4' "e 'f.mp4" g"#"h""", ["a b.mp4", 'c "d.mp4', "e 'f.mp4", "g#h"]),
        ("clip#2.mp4 '#3.mp4' \t #4.mp4 '", ["clip#2.mp4", "#3.mp4"]),
        ("$HOME/a.mp4 ~/b.mp4 %n.mp4 {source}.mp4", ["$HOME/a.mp4", "~/b.mp4", "%n.mp4", "{source}.mp4"]),
        ("film\u2028two.mp4 \u65e5\u672c.mp4", ["film\u2028two.mp4", "\u65e5\u672c.mp4"]),
        ("", []),
    ],
)
def test_words_are_quoted_as_in_a_shell_of_which_nothing_else_is_done(
    line: str, words: list[str], written: Path
) -> None:
    written.write_text(line, encoding="utf-8")
    assert parse(["@o.txt"]).source == words


@pytest.mark.parametrize(
    ("text", "argv", "words"),
    [
        ("a.mp4\n\n--shw --ids\n", [], "o.txt, line 3: unknown argument --shw (did you mean '--show'?)"),
        ("a.mp4 -o b.mp4\n--region\n0,0,9\n--ids", ["--no-hud"], "o.txt, line 3: argument --region: '0,0,9' is no"),
        ("a.mp4\n-o\n--ids\n", [], "o.txt, line 2: argument -o/--output: expected one argument"),
        ("a.mp4\n-o b.mp4\n-o\n", [], "o.txt, line 3: argument -o/--output: expected one argument"),
        ("--shw\na.mp4\n-o\nb.mp4\n", [], "o.txt, line 1: unknown argument --shw (did"),
        ("a.mp4 -o b.mp4 --region\n0,0,9", [], "o.txt, line 2: argument --region: '0,0,9' is no"),
        ("a.mp4\nconf=0.3\nb.mp4", [], "o.txt, line 2: there is no file conf=0.3; options are written as in"),
        ("a.mp4\n--classes person\ncat\n--ids", [], "o.txt, line 3: there is no file cat; classes have commas"),
        ("a.mp4\n", ["--shw"], "stream-seg: unknown argument --shw (did"),
        ("--ids\n", ["--stride", "0", "a.mp4"], "stream-seg: argument --stride: '0' is no whole number"),
        ("a.mp4 --keep\nrtsp://me:secret@cam/1", [], "line 2: argument --keep: 'rtsp://***@cam/1' is neither a time"),
        ("'a.mp4\n", [], 'o.txt, line 1: a quotation mark is not closed; a name with one is written "bob\'s.mp4"'),
        ("a.mp4 \\\r\n--ids", [], "o.txt, line 1 ends with \\, which is not needed: words go on in the next line"),
        ("a.mp4\n@o.txt", [], "o.txt, line 2: a file of options names no other, as @o.txt would; give both on the"),
        ("a.mp4\n--start 3\n--end 2\n-o b.mp4", [], "o.txt, line 3: --end 2 is not after --start 3"),
        ("a.mp4 -o b.mp4\n--end 2", ["--start", "3"], "o.txt, line 2: --end 2 is not after --start 3"),
        ("a.mp4 -o b.mp4\n--start 3", ["--end", "2"], "stream-seg: --end 2 is not after --start 3"),
        ("a.mp4 -o b.mp4\n--end 9\n--end=2\n--start 3", [], "stream-seg: --end 2 is not after"),
        (
            "synthetic:64x64@30x9 synthetic:64x64@30x9 -o b.mp4\n--line 0,0,9,9\n--line synthetic=0,0,9,9",
            [],
            "stream-seg: --line 0,0,9,9 is in the picture of one source, and there are",
        ),
        ("a.mp4 -o b.mp4\n\n--keep 3h", [], "o.txt, line 3: --keep removes old segments, so it needs --segment"),
        (
            "synthetic:64x64@30x9 -o b.mp4\n--classes\nperson,dgo\n",
            [],
            "o.txt, line 3: the model has no class 'dgo' (d",
        ),
        (
            "synthetic:64x64@30x9 -o b.mp4\n--region door=0,0,9,9\n--region 0,0,9,9",
            [],
            "o.txt, line 2: --region: no source is called 'door'",
        ),
        ("synthetic:64x64@30x9 -o b.mp4\n--classes 0,16", [], "o.txt, line 2: the model has no class '0'"),
        (
            "synthetic:64x64@30x9 -o b.mp4\n--region 0,0,9,9",
            ["--classes", "0"],
            "stream-seg: the model has no class '0'",
        ),
        ("a.mp4 -o b.mp4\n--score-threshold 0.5", ["--start", "1", "--end", "0.5"], "stream-seg: --end 0.5 is not"),
        ("-- -a.mp4", [], "o.txt, line 1: -- is for the command line; a source that begins with - is written ./-name"),
        ("a.mp4\0", [], "cannot read options from 'o.txt': it is not text in UTF-8"),
        ("a.mp4".encode("utf-16").decode("latin-1"), [], "'o.txt': it is not text in UTF-8"),
        ("#" * (MOST_BYTES + 1), [], "'o.txt': it is larger than 100 kB"),
        ("", [], "no source was named"),
        ("models list", [], "the subcommand comes first: stream-seg models"),
    ],
)
def test_a_mistake_in_a_file_gets_one_line_with_its_place(
    text: str, argv: list[str], words: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written.write_bytes(text.encode("latin-1"))
    code, line = failure(capsys, "@o.txt", *argv)
    assert code == 2
    assert words in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("text", "argv", "code", "words"),
    [
        ("# clips\nnone.mp4\n-o b.mp4", [], 3, "stream-seg: o.txt, line 2: no such file: none.mp4"),
        ("-o b.mp4", ["none.mp4"], 3, "stream-seg: no such file: none.mp4"),
        ("synthetic:64x64@30x9\n-o b.avi", [], 6, "stream-seg: o.txt, line 2: cannot write b.avi: '.avi' is not"),
        ("synthetic:64x64@30x9 -o b.mp4\n--codec h256", [], 6, "o.txt, line 2: there is no video codec 'h256'"),
        ("synthetic:64x64@30x9 -o b.mp4\n--model foo", [], 4, "o.txt, line 2: there is no model 'foo'"),
    ],
)
def test_so_does_what_is_found_to_be_wrong_only_later(
    text: str, argv: list[str], code: int, words: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written.write_text(text)
    failed, line = failure(capsys, "@o.txt", *argv)
    assert failed == code
    assert words in line


def test_no_place_is_told_of_what_only_contradicts_the_mistake(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batched_model(written.with_name("tiny.onnx"))
    written.with_name("names.txt").write_text("red\n")
    written.write_text("-o b.mp4\n--model tiny.onnx\n")
    _, line = failure(capsys, "synthetic:64x64@30x9", "@o.txt", "--labels", "names.txt")
    assert line.startswith("stream-seg: 1 labels were given, but tiny.onnx has 3 classes")


def test_a_file_of_options_that_is_none_is_told(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (written.parent / "@home.mp4").mkdir()
    for name, words in (
        ("@none.txt", "cannot read options from 'none.txt': no such file or directory"),
        ("@", "cannot read options from '': no file is named behind the @"),
        (f"@{written.parent}", "': is a directory"),
        ("@home.mp4", "no such file or directory; a source of that name is written ./@home.mp4"),
        ("@" + "n" * 300, "': file name too long"),
        ("@rtsp://me:secret@cam/1", "cannot read options from 'rtsp://***@cam/1': no such file or directory"),
    ):
        code, line = failure(capsys, name)
        assert (code, line.endswith(words)) == (2, True), line


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="pipes have no names here")
def test_a_file_is_read_once_so_that_it_may_be_a_pipe(written: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a.mp4 --stride 3")
    os.close(writer)
    args = parse([f"@/dev/fd/{reader}"])
    os.close(reader)
    assert (args.source, args.stride) == (["a.mp4"], 3)


def test_a_run_has_its_options_from_a_file(written: Path, tmp_path: Path) -> None:
    batched_model(tmp_path / "tiny.onnx")
    written.write_text("synthetic:64x64@30x9\n-o 'my film.mp4'  # in the working directory\n--model tiny.onnx\n")
    assert main(["@o.txt", "--device", "cpu", "--max-frames", "3"]) == 0
    assert frames_in(tmp_path / "my film.mp4") == 3


def test_the_example_of_the_guide_is_a_file_of_options(written: Path) -> None:
    (example,) = blocks("options", (ROOT / "docs" / "live.md").read_text(encoding="utf-8"))
    written.write_text(example)
    args = parse(["@o.txt"])
    assert len(args.source) == 2
    assert {place.source for place in [*args.region, *args.line]} == {"door-1", "yard-1"}
