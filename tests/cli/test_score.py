from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from volseg.cli import main
from volseg.metrics import PRESETS


@pytest.fixture
def folders(tmp_path):
    """Three small masks, and predictions that miss a row more each."""
    for number in range(3):
        mask = np.zeros((9, 7), np.uint8)
        mask[2:8, 1:5] = 255
        for side in ("pred", "truth"):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / side / f"{number}_a.png")
            mask[2 : 2 + number] = 0
        shutil.move(tmp_path / "pred" / f"{number}_a.png", tmp_path / f"{number}.png")
        shutil.move(tmp_path / "truth" / f"{number}_a.png", tmp_path / "pred" / f"{number}_a.png")
        shutil.move(tmp_path / f"{number}.png", tmp_path / "truth" / f"{number}_a.png")
    return tmp_path / "pred", tmp_path / "truth"


def run(*words):
    with pytest.raises(SystemExit) as exit_code:
        main([str(word) for word in words])
    return exit_code.value.code


def test_scores_are_printed_as_markdown_and_each_case_on_stderr(folders, capsys):
    assert run("score", *folders) == 0
    out, err = capsys.readouterr()
    dice = np.mean([1, 2 * 20 / 44, 2 * 16 / 40])
    assert f"| Dice | {dice:.4f} | " in out
    assert "| 2_a | 0.8000 | " in out
    assert err.splitlines()[-3:] == ["1 of 3: 0_a", "2 of 3: 1_a", "3 of 3: 2_a"]


def test_json_is_all_that_is_printed_when_asked_for(folders, capsys):
    assert run("score", *folders, "--json", "--preset", "drive") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["preset"]["score"] == pytest.approx(np.mean([1, 20 / 24, 16 / 24]))
    assert len(summary["metric_per_case"]) == 3


def test_files_are_written_into_the_output_folder(folders, tmp_path, capsys):
    out = tmp_path / "scores"
    assert run("score", *folders, "--output-dir", out, "--versus", folders[1]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["scores.csv", "scores.md", "summary.json"]
    assert json.loads((out / "summary.json").read_text())["versus"]["dice"]["pairs"] == 3
    assert f"wrote {out / 'summary.json'}" in capsys.readouterr().out
    assert run("score", *folders, "--output-dir", out) == 1
    assert "use --overwrite or another --output-dir" in capsys.readouterr().err
    assert run("score", *folders, "--output-dir", out, "--overwrite") == 0


def test_scores_are_not_written_among_the_predictions(folders, capsys):
    assert run("score", *folders, "--output-dir", folders[0]) == 1
    assert "an output folder apart from the masks" in capsys.readouterr().err


def test_a_missing_case_ends_in_one_message_and_exit_code_1(folders, capsys):
    (folders[0] / "1_a.png").unlink()
    assert run("score", *folders) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"volseg: {folders[0]}: expected one prediction for each of the 3 cases")
    assert "none for 1_a" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("groups.csv", "case,group\n0_a,x\n1_a,x\n2_a,y\n"),
        ("groups.json", '{"0_a": "x", "1_a": "x", "2_a": "y"}'),
    ],
    ids=["csv", "json"],
)
def test_groups_come_from_a_file(folders, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert run("score", *folders, "--groups", tmp_path / name) == 0
    assert "| x | 2 | " in capsys.readouterr().out


def test_groups_come_from_a_pattern(folders, capsys):
    assert run("score", *folders, "--groups", "^([0-9])", "--classes", "1=vessel") == 0
    out = capsys.readouterr().out
    assert "interval over groups" in out
    assert "| vessel | " in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.csv", "0_a,x,y\n", "other lines, or a case twice"),
        ("g.csv", "0_a,x\n0_a,y\n", "other lines, or a case twice"),
        ("g.json", "[1]", "got list"),
        ("g.json", "{", "got Expecting"),
        ("none.json", None, "a readable list of cases and groups"),
    ],
    ids=["columns", "twice", "list", "broken", "missing"],
)
def test_a_wrong_list_of_groups_is_refused(folders, tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert run("score", *folders, "--groups", tmp_path / name) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--preset", "sennt", "did you mean 'sennet'?"),
        ("--section", "tests", "did you mean 'test'?"),
        ("--spacing-mm", "1,2", "one positive number or three"),
        ("--spacing-mm", "x", "one positive number or three"),
        ("--classes", "vessel", "write 1=artery,2=vein"),
    ],
)
def test_a_wrong_option_is_refused(folders, capsys, option, value, message):
    assert run("score", *folders, option, value) == 1
    assert message in capsys.readouterr().err


def test_one_spacing_is_that_of_a_cube(folders, capsys):
    assert run("score", *folders, "--spacing-mm", "0.5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metric_per_case"][0]["spacing_mm"] == [0.5, 0.5, 0.5]


def test_the_help_has_an_example_and_names_all_presets(capsys):
    assert run("score", "--help") == 0
    out = capsys.readouterr().out
    assert "Example: volseg score" in out
    assert all(preset in out for preset in PRESETS)


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['volseg', 'score', '--help']; from volseg.cli import main\n"
        "try: main()\n"
        "finally: print('HEAVY', [m for m in ('torch', 'monai', 'nibabel') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "HEAVY []"
