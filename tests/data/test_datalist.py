from __future__ import annotations

import json
import os

import pytest

from volseg.checks import InputError
from volseg.data.datalist import Datalist, load_cases, read_datalist, write_datalist


def item(case, fold=None, **more):
    chosen = {"image": f"{case}/images", "label": f"{case}/labels", "case": case, "group": case, **more}
    return chosen if fold is None else {**chosen, "fold": fold}


def document(**more):
    return {"format": "volseg-datalist-1", "name": "sennet", "training": [], "test": [], **more}


@pytest.fixture
def prepared(tmp_path):
    """A folder of three training cases in two folds and one test case."""
    for case in ("a", "b", "c", "t"):
        for part in ("images", "labels"):
            (tmp_path / case / part).mkdir(parents=True)
    test = [{"image": "t/images", "case": "t", "group": "t", "spacing_mm": [0.05, 0.05, 0.05]}]
    datalist = Datalist("sennet", [item("a", 0), item("b", 1), item("c", 1)], test)
    write_datalist(tmp_path / "datalist.json", datalist)
    return tmp_path


def written(tmp_path, content):
    path = tmp_path / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def names(cases):
    return [case["case"] for case in cases]


def test_a_written_datalist_reads_back_equal(tmp_path):
    first = item("a", 0, labelled_range=[2, 9], label_coverage=0.65, spacing_mm=[1, 2.5, 3])
    second = item("b", 1, same_volume=True)
    classes = {0: "background", 1: "vessel"}
    datalist = Datalist("sennet", [first, second], [item("t")], "A kidney.", str(tmp_path), classes)
    write_datalist(tmp_path / "datalist.json", datalist)
    assert read_datalist(tmp_path / "datalist.json") == datalist


@pytest.mark.parametrize(
    ("section", "expected"),
    [("training", ["b", "c"]), ("validation", ["a"]), ("test", ["t"]), ("all", ["a", "b", "c", "t"])],
)
def test_a_section_holds_its_cases(prepared, section, expected):
    assert names(load_cases(prepared, section)) == expected


def test_training_and_validation_of_each_fold_are_disjoint_and_complete(prepared):
    for fold in (0, 1):
        training, validation = (names(load_cases(prepared, s, fold=fold)) for s in ("training", "validation"))
        assert sorted(training + validation) == ["a", "b", "c"]


def test_loaded_paths_are_absolute_from_any_working_directory(prepared, monkeypatch):
    monkeypatch.chdir(prepared.parent)
    (case,) = load_cases(prepared.name, "test")
    assert case["image"] == str(prepared / "t" / "images")


def test_a_root_moves_the_files_elsewhere(prepared, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    write_datalist(elsewhere / "datalist.json", Datalist("x", test=[item("t")], root=str(prepared)))
    assert load_cases(elsewhere, "test")[0]["label"] == str(prepared / "t" / "labels")


def test_labels_beside_the_datalist_are_inside_although_the_root_is_elsewhere(prepared, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    (elsewhere / "labels").mkdir()
    case = item("t", label=str(elsewhere / "labels"))
    write_datalist(elsewhere / "datalist.json", Datalist("x", test=[case], root=str(prepared)))
    assert load_cases(elsewhere, "test")[0]["label"] == str(elsewhere / "labels")


@pytest.mark.parametrize(
    "name", ["$import os", "@root", "%a.json::x", "__import__('os')", "a#b", "-x", "ü\nö"]
)
def test_a_file_name_is_only_a_name(tmp_path, name):
    (tmp_path / name).touch()
    case = {"image": name, "case": name, "group": "g"}
    write_datalist(tmp_path / "datalist.json", Datalist("x", test=[case]))
    assert load_cases(tmp_path, "test") == [{"image": str(tmp_path / name), "case": name, "group": "g"}]


def test_a_list_without_folds_is_all_training(tmp_path):
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "labels").mkdir()
    written(tmp_path, document(training=[item("a")]))
    assert names(load_cases(tmp_path, "training")) == ["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": -1}, "fold to be 0, 1, 2"),
        ({"fold": True}, "fold to be 0, 1, 2"),
        ({"spacing_mm": [1, 2, 0]}, "spacing_mm to be two or three positive"),
        ({"spacing_mm": [1, float("nan"), 1]}, "spacing_mm to be two or three positive"),
        ({"label_coverage": 0}, "label_coverage to be a number above 0 and up to 1"),
        ({"label_coverage": 1.5}, "label_coverage to be a number above 0 and up to 1"),
        ({"labelled_range": [4, 4]}, "labelled_range to be"),
        ({"image": 3}, "image to be a path, got 3"),
        ({"case": ""}, "case to be text, got ''"),
        ({"same_volume": 1}, "same_volume to be true or false"),
        ({"field_of_view": 3}, "field_of_view to be a path"),
        ({"field_of_view": "../fov.png"}, "field_of_view inside .*, got '../fov.png'"),
        ({"label_rule": "above"}, 'label_rule to be "nonzero", "above:127" or'),
        ({"label_rule": {}}, "label_rule to be"),
        ({"label_rule": {"red": 1}}, "label_rule to be"),
        ({"label_rule": {"#ff0000": 1, "255": 1}}, "label_rule to be"),
        ({"label_rule": {"#ff0000": 300}}, "label_rule to be"),
        ({"label_rule": {"#ff0000": True}}, "label_rule to be"),
        ({"label_offset": 0.5}, "label_offset to be a whole number, got 0.5"),
        ({"label_offset": True}, "label_offset to be a whole number, got True"),
        ({"labl": "x"}, "expected known keys, got 'labl'; did you mean 'label'"),
        ({"image": "../a.nii.gz"}, "image inside .*, got '../a.nii.gz'"),
        ({"image": "b/../../a.nii.gz"}, "image inside"),
        ({"image": "/etc/passwd"}, "image inside"),
    ],
)
def test_a_wrong_case_item_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=f"case .*{message}"):
        read_datalist(written(tmp_path, document(training=[{**item("a", 0), **change}])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a datalist in JSON"),
        ("[" * 100_000, "expected a datalist in JSON"),
        ('{"format": 1, "format": 2}', "the key 'format' twice"),
        ("[]", "expected a JSON object, got list"),
        ("{}", 'expected "format": "volseg-datalist-1", got None'),
        (document(format="volseg-datalist-2"), "got 'volseg-datalist-2'"),
        (document(trainning=[]), "got 'trainning'; did you mean 'training'"),
        (document(test={}), "test to be a list"),
        (document(test=["a"]), "a JSON object for each case, got 'a'"),
        (document(classes={"one": "a"}), "classes to be"),
        (document(root="data"), "an absolute folder as root, got 'data'"),
        ({"format": "volseg-datalist-1", "name": "x", "test": []}, "the key 'training', got none"),
        (document(test=[{"image": "a", "case": "a"}]), "the key 'group' in the test section"),
        (document(training=[{"image": "a", "case": "a", "group": "a"}]), "the key 'label' in the training"),
        (
            document(training=[item("a", 0)], test=[item("a")]),
            "a different name for each case, got 'a' twice",
        ),
        (document(training=[item("a", 0, group="g"), item("b", 1, group="g")]), "group 'g' in one fold"),
    ],
    ids=range(16),
)
def test_a_wrong_list_is_refused_by_name(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=f"^{path}.*{message}"):
        read_datalist(path)


def test_an_invalid_list_is_not_written(tmp_path):
    with pytest.raises(InputError, match="inside"):
        write_datalist(tmp_path / "datalist.json", Datalist("x", test=[item("a", image="../a")]))
    assert not (tmp_path / "datalist.json").exists()


def test_an_existing_list_is_replaced_only_when_asked(prepared):
    with pytest.raises(InputError):
        write_datalist(prepared / "datalist.json", Datalist("other"))
    write_datalist(prepared / "datalist.json", Datalist("other"), overwrite=True)
    assert read_datalist(prepared / "datalist.json").name == "other"


def test_missing_files_are_named_and_counted(prepared):
    os.rmdir(prepared / "b" / "images")
    os.rmdir(prepared / "c" / "labels")
    with pytest.raises(
        InputError, match="b/images: expected a file or folder, got nothing there; 2 files of"
    ):
        load_cases(prepared, "training")
    assert names(load_cases(prepared, "training", must_exist=())) == ["b", "c"]


@pytest.mark.parametrize("folder", ["", "  "])
def test_no_folder_is_refused(folder):
    with pytest.raises(InputError, match="dataset_dir: expected a folder, got an empty text"):
        load_cases(folder, "training")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="none: expected the folder of a prepared data set, got nothing there"
    ):
        load_cases(tmp_path / "none", "training")


def test_an_empty_section_is_refused(tmp_path):
    written(tmp_path, document(test=[{"image": "a", "case": "a", "group": "a"}]))
    with pytest.raises(InputError, match="expected cases for training, got a list of 0 training and 1 test"):
        load_cases(tmp_path, "training")


def test_an_unknown_fold_is_refused(prepared):
    with pytest.raises(InputError, match=r"a fold of the list \(0, 1\), got fold 7"):
        load_cases(prepared, "training", fold=7)


def test_an_unknown_section_is_refused(prepared):
    with pytest.raises(ValueError, match="did you mean 'training'"):
        load_cases(prepared, "trainig")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("kidney_1_dense/images/0.tif", "sennet"),
        ("train/kidney_2/images/0.tif", "sennet"),
        ("labels/0.tif", "sennet"),
        ("x/labels/0.tiff", "sennet"),
        ("Subject_01/labels/010.png", "duke-dme"),
        ("test/Subject_01/labels/010.png", "duke-dme"),
        ("original_images/a.img/1.bmp", "oct-edema"),
        ("train/original_images/a.img/1.bmp", "oct-edema"),
        ("labels/a.png", "NAME"),
        ("x/y.png", "NAME"),
    ],
)
def test_a_raw_folder_is_told_how_to_become_a_prepared_one(tmp_path, folder, name):
    for path in (tmp_path / folder, tmp_path / folder.replace("labels", "images")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(InputError, match=f"make one with `volseg prepare {name} {tmp_path}`"):
        load_cases(tmp_path, "training")


def test_the_folder_of_one_subject_is_known_by_its_name(tmp_path):
    subject = tmp_path / "Subject_01"
    for part in ("images", "labels"):
        (subject / part).mkdir(parents=True)
        (subject / part / "010.png").touch()
    with pytest.raises(InputError, match="volseg prepare duke-dme"):
        load_cases(subject, "training")


@pytest.mark.parametrize("rule", ["nonzero", "above:127", "binary", {"#ff0000": 1, "#00FF00": 2}, {"255": 1}])
def test_a_case_may_state_its_label_rule_and_its_field_of_view(prepared, rule):
    (prepared / "t" / "fov.gif").touch()
    case = item("t", label_rule=rule, field_of_view="t/fov.gif")
    write_datalist(prepared / "datalist.json", Datalist("drive", test=[case]), overwrite=True)
    (loaded,) = load_cases(prepared, "test")
    assert loaded["label_rule"] == rule
    assert loaded["field_of_view"] == str(prepared / "t" / "fov.gif")


def test_a_missing_field_of_view_is_refused(prepared):
    case = item("t", field_of_view="t/fov.gif")
    write_datalist(prepared / "datalist.json", Datalist("drive", test=[case]), overwrite=True)
    with pytest.raises(InputError, match=r"fov\.gif: expected a file or folder, got nothing there"):
        load_cases(prepared, "test")
