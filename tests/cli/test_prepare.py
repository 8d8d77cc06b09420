from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from volseg.cli import main
from volseg.data.datasets import ADAPTERS


@pytest.fixture
def kidney(tmp_path):
    """Images and labels of one small volume."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "k" / part).mkdir(parents=True)
    for number in range(10):
        values = rng.integers(0, 60_000, (9, 7)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"k/images/{number:04d}.tif", values)
        tifffile.imwrite(tmp_path / f"k/labels/{number:04d}.tif", np.uint8(255) * (values > 40_000))
    return tmp_path / "k"


def run(*words):
    with pytest.raises(SystemExit) as exit_code:
        main([str(word) for word in words])
    return exit_code.value.code


def test_a_good_data_set_ends_with_its_table_and_exit_code_0(kidney, capsys):
    assert run("prepare", "sennet", kidney, "--spacing-mm", "0.002,0.002,0.005") == 0
    out = capsys.readouterr().out
    assert "k_first" in out
    assert "0.002x0.002x0.005" in out
    assert out.endswith(f"wrote {kidney / 'datalist.json'}\n")


def test_faults_end_in_one_message_and_exit_code_1(kidney, capsys):
    for number in range(12):
        tifffile.imwrite(kidney / f"labels/{number + 50:04d}.tif", np.zeros((9, 7), np.uint8))
    assert run("prepare", "sennet", kidney) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "volseg: 12 faults in sennet data, no datalist written:"
    assert lines[1] == "  k/labels: slice 50 has no image; remove it or add the image"
    assert lines[-1] == "  and 2 more; --json lists all"
    assert len(lines) == 12
    assert not (kidney / "datalist.json").exists()


def test_one_fault_is_told_in_the_singular(kidney, capsys):
    (kidney / "labels/0003.tif").unlink()
    run("prepare", "sennet", kidney)
    assert capsys.readouterr().err.startswith("volseg: 1 fault in sennet data")


def test_json_prints_the_whole_report(kidney, capsys):
    assert run("prepare", "sennet", kidney, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["datalist"] == str(kidney / "datalist.json")
    assert [case["fold"] for case in report["cases"]] == [1, 0]


def test_json_lists_the_faults_too(kidney, capsys):
    (kidney / "labels/0003.tif").unlink()
    assert run("prepare", "sennet", kidney, "--json") == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["k/labels: slice 3 has no label; add it"]


def test_an_existing_list_is_replaced_only_when_asked(kidney, capsys):
    run("prepare", "sennet", kidney)
    assert run("prepare", "sennet", kidney) == 1
    assert "use --overwrite or --output-dir" in capsys.readouterr().err
    assert run("prepare", "sennet", kidney, "--overwrite", "--seed", "3") == 0


def test_an_unknown_data_set_gets_a_hint(kidney, capsys):
    assert run("prepare", "sennt", kidney) == 1
    names = ", ".join(sorted(ADAPTERS))
    expected = f"volseg: NAME: expected one of {names}, got 'sennt'; did you mean 'sennet'?\n"
    assert capsys.readouterr().err == expected


def test_the_help_lists_every_data_set(capsys):
    assert run("prepare", "--help") == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ", ".join(sorted(ADAPTERS)) in words


def test_generated_shapes_end_with_a_line_for_each_fold(tmp_path, capsys):
    assert run("prepare", "shapes", tmp_path, "--generate", "5", "--generate-test", "2", "--seed", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "cases", "groups", "without", "mask", "empty", "masks", "foreground"]
    assert [line.split()[:2] for line in lines[1:6]] == [["fold", str(fold)] for fold in range(5)]
    assert [line.split()[:3] for line in lines[6:8]] == [["test", "2", "2"], ["all", "7", "7"]]
    assert lines[8] == f"wrote {tmp_path / 'datalist.json'}"


def test_json_lists_every_picture(tmp_path, capsys):
    assert run("prepare", "shapes", tmp_path, "--generate", "2", "--generate-test", "1", "--json") == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [(case["case"], case["group"], case["size"]) for case in cases] == [
        ("train_0", "train_0", [400, 200]),
        ("train_1", "train_1", [400, 200]),
        ("test_0", "test_0", [400, 200]),
    ]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("sennet", "--observer", "2ndHO"), ("chase", "--generate", "3"), ("fundus", "--spacing-mm", "1")],
)
def test_an_option_of_another_data_set_is_refused(kidney, capsys, name, option, value):
    assert run("prepare", name, kidney, option, value) == 1
    expected = f"{option}: expected an option that {name} has, got one of other data sets; leave it out"
    assert capsys.readouterr().err == f"volseg: {expected}\n"


@pytest.mark.parametrize("text", ["a", "0", "-1", "1,2", "nan", "1,,2"])
def test_an_impossible_spacing_is_refused(kidney, capsys, text):
    assert run("prepare", "sennet", kidney, f"--spacing-mm={text}") == 1
    assert f"--spacing-mm: expected one positive number or three, got '{text}'" in capsys.readouterr().err


def test_the_traceback_is_shown_when_asked_for(kidney, monkeypatch):
    monkeypatch.setenv("VOLSEG_TRACEBACK", "1")
    with pytest.raises(ValueError, match="did you mean 'sennet'"):
        main(["prepare", "sennt", str(kidney)])


@pytest.mark.parametrize("command", [["prepare"], ["export", "rle"]], ids=" ".join)
def test_each_help_has_an_example(capsys, command):
    assert run(*command, "--help") == 0
    assert f"Example: volseg {' '.join(command)}" in capsys.readouterr().out


def test_a_failing_disk_ends_in_one_message(kidney, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "datalist.json")

    monkeypatch.setattr("volseg.files.write_json", fail)
    assert run("prepare", "sennet", kidney) == 1
    assert capsys.readouterr().err == "volseg: [Errno 28] No space left on device: 'datalist.json'\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['volseg', '--help']; from volseg.cli import main\n"
        "try: main()\n"
        "finally: print('HEAVY', [m for m in ('torch', 'monai', 'nibabel') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = result.stdout.splitlines()[-1]
    assert "torch" not in heavy
    assert "monai" not in heavy
    assert "nibabel" not in heavy
