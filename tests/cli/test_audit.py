"""`volseg audit` from the command line."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from volseg.cli import main
from volseg.data import Datalist, read_datalist, write_datalist


def photograph(seed):
    noise = np.random.default_rng(seed).normal(size=(60, 60))
    smooth = sum(ndimage.gaussian_filter(noise, width) * width for width in (1.5, 4))
    return np.uint8(np.clip(128 + 45 * smooth / smooth.std(), 0, 255))


@pytest.fixture
def prepared(tmp_path):
    """Five cases in two folds: b is a with another mask, d is c mirrored in the other fold."""
    folder = tmp_path / "set"
    folder.mkdir()
    mask = np.zeros((60, 60), np.uint8)
    mask[10:30, 10:30] = 255
    contents = {
        "a": (photograph(0), mask, 0),
        "b": (photograph(0), mask.T[::-1], 0),
        "c": (photograph(1), mask, 0),
        "d": (photograph(1)[:, ::-1], mask[:, ::-1], 1),
        "e": (photograph(2), 0 * mask, 1),
    }
    items = []
    for name, (pixels, label, fold) in contents.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
        Image.fromarray(np.ascontiguousarray(label)).save(folder / f"{name}_mask.png")
        items.append({"case": name, "group": name, "image": f"{name}.png", "label": f"{name}_mask.png",
                      "fold": fold})  # fmt: skip
    write_datalist(folder / "datalist.json", Datalist("set", items))
    return folder


def run(*words):
    with pytest.raises(SystemExit) as exit_code:
        main(["audit", *map(str, words)])
    return exit_code.value.code


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_findings_end_with_exit_code_3_and_are_told(prepared, capsys):
    assert run(prepared) == 3
    out = capsys.readouterr().out
    assert "5 masks, 1 of them empty" in out
    assert "1 pairs with contradicting masks, 0 of them resolved" in out
    assert "leak: c, d on fold 0, fold 1" in out


def test_a_clean_folder_ends_with_exit_code_0(tmp_path):
    for seed in range(3):
        Image.fromarray(photograph(seed)).save(tmp_path / f"{seed}.png")
    assert run(tmp_path) == 0


def test_json_holds_the_findings(prepared, capsys):
    assert run(prepared, "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["is_clean"] is False
    assert document["group_count"] == 3
    assert document["pairs"][0]["mask_dice"] == 0


def test_a_decision_is_recorded_beside_the_datalist_and_nothing_else_changes(prepared, tmp_path, capsys):
    before = hashes(prepared)
    assert run(prepared, "--out", tmp_path / "out") == 3
    assert hashes(prepared) == before
    document = json.loads((tmp_path / "out/contradictions.json").read_text())
    document["resolutions"][0]["keep"] = "b"
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(document))
    assert run(prepared, "--resolve", edited) == 3  # the leak remains
    after = hashes(prepared)
    after.pop("resolutions.json")
    assert after == before
    capsys.readouterr()
    run(prepared)
    assert "1 pairs with contradicting masks, 1 of them resolved" in capsys.readouterr().out


def test_the_new_datalist_passes_the_audit(prepared, tmp_path, capsys):
    decision = {"format": "volseg-resolutions-1", "resolutions": [{"pair": ["a", "b"], "keep": "b"}]}
    (tmp_path / "edited.json").write_text(json.dumps(decision))
    before = (prepared / "datalist.json").read_bytes()
    assert run(prepared, "--resolve", tmp_path / "edited.json", "--write-datalist", "audited.json") == 3
    assert (prepared / "datalist.json").read_bytes() == before
    items = {item["case"]: item for item in read_datalist(prepared / "audited.json").training}
    assert sorted(items) == ["b", "c", "d", "e"]
    assert items["c"]["fold"] == items["d"]["fold"]
    assert items["c"]["group"] == items["d"]["group"]
    assert run(prepared, "--datalist", "audited.json") == 0


def test_a_report_is_not_overwritten_unasked(prepared, tmp_path, capsys):
    run(prepared, "--out", tmp_path / "out")
    capsys.readouterr()
    assert run(prepared, "--out", tmp_path / "out") == 1
    assert "use --overwrite or another --out" in capsys.readouterr().err
    assert run(prepared, "--out", tmp_path / "out", "--overwrite") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write-datalist", "datalist.json"], "another file name in the same folder"),
        (["--write-datalist", "../x.json"], "another file name in the same folder"),
        (["--write-datalist", "x.json", "--datalist", "none.json"], "a datalist to regroup"),
        (["--write-datalist", "a.png"], "expected a new file"),
        (["--resolve", "missing.json"], "expected resolutions in JSON"),
    ],
    ids=["itself", "elsewhere", "no list", "exists", "missing"],
)
def test_wrong_options_end_in_one_message(prepared, capsys, words, message):
    assert run(prepared, *words) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_an_unknown_case_in_a_decision_is_refused_before_it_is_recorded(prepared, tmp_path, capsys):
    decision = {"format": "volseg-resolutions-1", "resolutions": [{"pair": ["a", "x"], "keep": "a"}]}
    (tmp_path / "edited.json").write_text(json.dumps(decision))
    assert run(prepared, "--resolve", tmp_path / "edited.json") == 1
    assert "names of cases" in capsys.readouterr().err
    assert not (prepared / "resolutions.json").exists()
