"""Layers, baked configs, overrides and refusals of bundles."""

import json
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, create_workflow

from volseg import bundles
from volseg.checks import InputError, refuse

ROOT = Path(__file__).parent.parent / "bundles"
NAMES = sorted(path.parent.name for path in ROOT.glob("*/src"))
CONFIG = {
    "epochs": 3,
    "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1},
    "train": {"handlers": [{"_target_": "StatsHandler"}], "roi_size": [8, 8]},
    "optimizer": "$torch.optim.SGD([])",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_configs_are_those_baked_from_the_layers(name):
    for file, text in bundles.baked_configs(ROOT / name).items():
        assert (ROOT / name / "configs" / file).read_text() == text, f"run: volseg bake bundles/{name}"


def test_a_later_layer_replaces_a_leaf_and_extends_a_list(tmp_path):
    write = {
        "b/src/common.json": {"a": {"x": 1, "y": 2}, "items": [1]},
        "_shared/train.json": {"wired": "@a"},
        "b/src/train.json": {"a::x": 5, "+items": [2]},
    }
    for other in ("evaluate", "inference", "ensemble", "multi_gpu_train", "multi_gpu_evaluate"):
        write[f"_shared/{other}.json"] = {}
    for file, content in write.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    (tmp_path / "_shared" / "logging.conf").write_text("[loggers]\n")
    baked = bundles.baked_configs(tmp_path / "b")
    assert json.loads(baked["train.json"]) == {"a": {"x": 5, "y": 2}, "items": [1, 2], "wired": "@a"}
    assert json.loads(baked["multi_gpu_train.json"]) == json.loads(baked["train.json"])
    assert json.loads(baked["evaluate.json"])["a"] == {"x": 1, "y": 2}


def test_a_missing_layer_is_named(tmp_path):
    (tmp_path / "b" / "src").mkdir(parents=True)
    with pytest.raises(InputError, match=r"common\.json: expected a layer"):
        bundles.baked_configs(tmp_path / "b")


def test_dumped_json_is_the_same_json_in_lines_that_fit():
    content = {
        "short": [1, 2, 3],
        "long": [{"name": "x" * 30, "value": number} for number in range(5)],
        "empty": {},
    }
    text = bundles.dump(content)
    assert json.loads(text) == content
    assert max(map(len, text.splitlines())) <= 110
    assert '    "short": [1, 2, 3],' in text.splitlines()


@pytest.mark.parametrize(
    "argument",
    [
        "--epochs=5",
        "--network_def::out_channels=2",
        "--network_def#bias=False",
        "--train::handlers::0::_disabled_=True",
        "--train::roi_size::0=4",
        "--optimizer::lr=3",
        "--config_file=x.json",
        "--_meta_::version=2",
        "positional",
    ],
)
def test_overrides_that_name_something_pass(argument):
    bundles.check_overrides([argument], CONFIG)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--epoch=5", "did you mean 'epochs'?"),
        ("--network_deff::x=5", "did you mean 'network_def'?"),
        ("--network_def::out_chanels=5", "did you mean 'out_channels'?"),
        ("--train::handlers::7=5", "use one of 0"),
        ("--+epoch=5", "did you mean 'epochs'?"),
    ],
)
def test_an_override_that_names_nothing_is_refused_with_the_nearest_id(argument, hint):
    with pytest.raises(InputError) as caught:
        bundles.check_overrides([argument], CONFIG)
    assert hint in str(caught.value)


def write_hyper(folder, **values):
    file = folder / "hyper.json"
    file.write_text(json.dumps(values))
    return str(file)


def test_a_file_of_overrides_that_name_something_passes(tmp_path):
    values = {"epochs": 5, "network_def::out_channels": 2, "train#roi_size": [4, 4], "_meta_::version": "2"}
    values |= {"+train": {"roi_size": [2, 2]}, "config_file": "x.json", "optimizer": {"_target_": "list"}}
    bundles.check_overrides([f"--args_file={write_hyper(tmp_path, **values)}"], CONFIG)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "did you mean 'epochs'?"),
        ("train::roi_sizes", "did you mean 'roi_size'?"),
        ("network_def::out_chanels", "did you mean 'out_channels'?"),
    ],
)
def test_a_misspelt_id_in_a_file_is_refused_with_the_file_and_the_nearest_id(name, hint, tmp_path):
    file = write_hyper(tmp_path, **{name: 5})
    with pytest.raises(InputError) as caught:
        bundles.check_overrides(["--args_file", file], CONFIG)
    assert str(caught.value).startswith(f"{file}: {name}: expected an id of ")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "part"), [("network_def", {"out_channels": 2}), ("train", {"roi_size": [4, 4]})]
)
def test_a_part_in_a_file_that_would_drop_the_rest_is_refused(name, part, tmp_path):
    key = next(iter(part))
    with pytest.raises(InputError, match=f"the whole of {name}, got only {key}; .* as {name}::{key}"):
        bundles.check_overrides(["--args_file", write_hyper(tmp_path, **{name: part})], CONFIG)


def run_bundle(monkeypatch, *arguments):
    """Initialise a run as its command line does, and return what became of the config."""
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    monkeypatch.setattr(bundles, "_own_process", lambda: None)
    given = dict(argument[2:].split("=", 1) for argument in arguments)
    with pytest.warns(UserWarning, match="parsing config_file"):
        return create_workflow(logging_file=False, workflow_type=None, **given).parser


@pytest.fixture
def tiny(tmp_path):
    config = {**CONFIG, "imports": ["$import volseg", "$import volseg.bundles"]}
    config |= {"finalize": [], "optimizer": None}
    config["initialize"] = ["$volseg.bundles.start_run('.', None, needs_data=False)"]
    (tmp_path / "metadata.json").write_text("{}")
    (tmp_path / "train.json").write_text(json.dumps(config))
    return str(tmp_path / "train.json")


def test_a_file_overrides_the_config_and_the_command_line_the_file(tiny, tmp_path, monkeypatch):
    values = {"epochs": 5, "train::roi_size": [4, 4], "network_def::out_channels": 2, "config_file": tiny}
    file = write_hyper(tmp_path, **values)
    parser = run_bundle(monkeypatch, f"--args_file={file}", "--epochs=7", "--network_def#out_channels=3")
    assert parser["epochs"] == "7"
    assert parser["train::roi_size"] == [4, 4]
    assert parser["network_def"] == {**CONFIG["network_def"], "out_channels": "3"}


@pytest.mark.parametrize("names_config", [True, False], ids=["config in the file", "config outside"])
def test_a_run_with_a_misspelt_id_in_a_file_does_not_start(tiny, tmp_path, monkeypatch, names_config):
    file = write_hyper(tmp_path, epoch=5, **({"config_file": tiny} if names_config else {}))
    rest = [] if names_config else [f"--config_file={tiny}"]
    with pytest.raises(RuntimeError, match="start_run") as caught:
        run_bundle(monkeypatch, f"--args_file={file}", *rest)
    assert "hyper.json: epoch: expected an id of this config" in bundles._message_of(caught.value)


@pytest.mark.parametrize("dataset_dir", ["", None])
def test_a_run_without_a_dataset_is_refused(dataset_dir):
    with pytest.raises(InputError, match="pass --dataset_dir"):
        bundles.start_run("bundle", dataset_dir)


def test_a_dataset_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such path"):
        bundles.start_run("bundle", str(tmp_path / "nowhere"))


def test_a_device_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(InputError, match="pass --device cpu"):
        bundles.start_run("bundle", str(tmp_path), device="cuda:99")


def failure_of(config, identifier="run"):
    """What MONAI raises while it evaluates an id of a config."""
    with pytest.raises(RuntimeError, match="Failed to") as caught:
        ConfigParser(config, globals={"refuse": refuse}).get_parsed_content(identifier)
    return caught.value


def told(error, capsys):
    bundles._tell_refusal(type(error), error, error.__traceback__)
    return capsys.readouterr().err.splitlines()


def test_a_refusal_below_the_wrappers_of_monai_is_the_only_line(capsys):
    config = {"run": "$@item", "item": {"_target_": "list", "iterable": "@cases"}}
    config["cases"] = "$refuse('a.tif', 'grey', 'RGB', 'convert it')"
    assert told(failure_of(config), capsys) == ["error: a.tif: expected grey, got RGB; convert it"]


@pytest.mark.parametrize(
    ("component", "first"),
    [
        ({"_target_": "torch.nn.Dropout", "p": 3}, "error: dropout probability has to be between 0 and 1"),
        ({"_target_": "torch.nn.ReLU", "size": 3}, "error: ReLU.__init__() got an unexpected keyword"),
        ({"_target_": "json.load", "fp": "$open('/nowhere')"}, "error: [Errno 2] No such file"),
        ({"_target_": "importlib.import_module", "name": "nowhere"}, "error: No module named 'nowhere'"),
    ],
    ids=["value", "keyword", "file", "library"],
)
def test_a_wrong_argument_ends_in_its_own_message_without_a_traceback(component, first, capsys):
    lines = told(failure_of({"run": "$@item", "item": component}), capsys)
    assert lines[0].startswith(first)
    assert "VOLSEG_TRACEBACK=1" in lines[-1]
    assert len(lines) <= 6


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"run": "$@nowhere"}, "nowhere"),
        ({"run": "$@item", "item": {"_target_": "volseg.losses.Nope"}}, "volseg.losses.Nope"),
    ],
    ids=["id", "class"],
)
def test_what_a_config_refers_to_and_does_not_exist_is_named_without_a_traceback(config, first, capsys):
    with pytest.raises(Exception, match=r"nowhere|Nope") as caught:
        ConfigParser(config).get_parsed_content("run")
    lines = told(caught.value, capsys)
    assert first in lines[0]
    assert len(lines) <= 6
    assert not any("Traceback" in line for line in lines)


def test_the_component_that_refuses_its_argument_is_named(capsys):
    item = {"_target_": "torch.nn.Linear", "in_features": "many", "out_features": 1}
    assert "in torch.nn.Linear;" in told(failure_of({"run": "$@item", "item": item}), capsys)[-1]


def test_the_traceback_is_shown_when_asked_for_and_for_faults_of_the_program(capsys, monkeypatch):
    fault = failure_of({"run": "$[].missing"})
    assert "Traceback" in "\n".join(told(fault, capsys))
    refusal = failure_of({"run": "$refuse('a', 'b', 'c', 'd')"})
    monkeypatch.setenv("VOLSEG_TRACEBACK", "1")
    assert "Traceback" in "\n".join(told(refusal, capsys))


class OneRefusal(torch.utils.data.Dataset):
    """A data set whose only case is refused, below a wrapper."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise InputError("a.tif: expected grey, got RGB; convert it")
        except InputError as error:
            raise RuntimeError("applying transform LoadImaged") from error


def test_a_refusal_in_a_worker_process_is_the_only_line(capsys):
    with pytest.raises(RuntimeError, match="worker process") as caught:
        next(iter(torch.utils.data.DataLoader(OneRefusal(), num_workers=1)))
    assert told(caught.value, capsys) == ["error: a.tif: expected grey, got RGB; convert it"]


def test_the_root_follows_the_config_file_on_the_command_line(monkeypatch, tmp_path):
    (tmp_path / "copy" / "configs").mkdir(parents=True)
    (tmp_path / "copy" / "configs" / "metadata.json").write_text("{}")
    config = tmp_path / "copy" / "configs" / "train.json"
    monkeypatch.setattr(sys, "argv", ["run", "--config_file", f"['{config}', 'other.json']"])
    assert bundles.bundle_root("kidney_vessels") == str(tmp_path / "copy")


def test_the_root_without_a_command_line_is_that_of_the_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.chdir(tmp_path)
    assert Path(bundles.bundle_root("kidney_vessels")) == (ROOT / "kidney_vessels").resolve()


def test_an_unknown_bundle_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="pass --bundle_root"):
        bundles.bundle_root("liver_vessels")


def test_joining_ranks_needs_torchrun(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="torchrun"):
        bundles.join_ranks(torch.device("cpu"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workflow", bundles.WORKFLOWS)
def test_every_reference_of_a_baked_config_resolves_to_something(name, workflow):
    parser = ConfigParser(ConfigParser.load_config_file(str(ROOT / name / "configs" / f"{workflow}.json")))
    parser.parse(True)
    for identifier, item in parser.ref_resolver.items.items():
        for reference in parser.ref_resolver.find_refs_in_config(config=item.get_config(), id=identifier):
            assert reference in parser.ref_resolver.items, f"{identifier} refers to @{reference}"


def test_a_changed_argument_of_an_enhancement_makes_another_key_of_resuming():
    config = ConfigParser.load_config_file(str(ROOT / "fundus_vessels" / "configs" / "inference.json"))
    keys = []
    for limit in (0.01, 0.02, 0.02):
        contrast = {"_target_": "volseg.transforms.LimitContrastd", "keys": "image", "clip_limit": limit}
        parser = ConfigParser({**config, "enhance": [contrast]})
        stated = parser.get_parsed_content("predictions::settings::enhance")
        keys.append(json.dumps(stated, sort_keys=True))
    assert keys[0] != keys[1] == keys[2]
