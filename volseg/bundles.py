"""Layers of a bundle and the baked configs made from them; the only module that knows bundle configs."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import pydoc
import re
import signal
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser

from volseg.checks import InputError, nearest, refuse
from volseg.files import write_text

__all__ = [
    "WORKFLOWS",
    "bake",
    "baked_configs",
    "bundle_root",
    "check_overrides",
    "default_device",
    "join_ranks",
    "start_run",
]

WORKFLOWS = ("train", "evaluate", "inference", "ensemble", "multi_gpu_train", "multi_gpu_evaluate")
"""The configs that every bundle is baked into."""

RUN_ARGUMENTS = {
    "config_file",
    "meta_file",
    "logging_file",
    "init_id",
    "run_id",
    "final_id",
    "tracking",
    "args_file",
}
RUN_ARGUMENTS |= {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "workflow_type"}
LINE_LENGTH = 110
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
# what a wrong value on the command line, a missing file or library or a small machine ends in
_USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, torch.OutOfMemoryError)
_WORKER_REFUSAL = re.compile(r"^[\w.]*InputError: (.+?)(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
_MOST_LINES = 5
logger = logging.getLogger(__name__)


def bake(bundle: Path, *, shared: Path | None = None) -> list[Path]:
    """Write the self-contained configs of a bundle from its layers.

    Args:
        bundle: folder with `src/`; `configs/` beside it is replaced file by file.
        shared: folder of the wiring; `_shared` beside the bundle if None.

    Returns:
        The files written.

    Raises:
        InputError: when a layer is missing.
    """
    written = []
    for name, text in baked_configs(bundle, shared=shared).items():
        path = bundle / "configs" / name
        path.parent.mkdir(exist_ok=True)
        write_text(path, text, overwrite=True)
        written.append(path)
    return written


def baked_configs(bundle: Path, *, shared: Path | None = None) -> dict[str, str]:
    """Text of each baked config of a bundle by file name, without writing anything.

    Values (`src/common.json`) come first, then the wiring of the workflow, then its differences
    (`src/<workflow>.json`): a later key replaces the subtree, `a::b` one leaf, `+key` extends.

    Raises:
        InputError: when a layer is missing.
    """
    shared = shared or bundle.parent / "_shared"
    texts = {}
    for workflow in WORKFLOWS:
        layers = [bundle / "src" / "common.json", *_wiring(bundle, shared, workflow)]
        for layer in layers:
            if not layer.is_file():
                refuse(
                    layer,
                    "a layer of the bundle",
                    "no such file",
                    f"write it, or remove {bundle.name} from bundles/",
                )
        merged = ConfigParser.load_config_files([str(layer) for layer in layers])
        texts[f"{workflow}.json"] = dump(merged)
    texts["logging.conf"] = (shared / "logging.conf").read_text(encoding="utf-8")
    return texts


def _wiring(bundle: Path, shared: Path, workflow: str) -> list[Path]:
    base = "inference" if workflow == "ensemble" else workflow.removeprefix("multi_gpu_")
    layers = [shared / f"{base}.json"]
    difference = bundle / "src" / f"{base}.json"
    layers += [difference] if difference.is_file() else []
    if base != workflow:
        layers.append(shared / f"{workflow}.json")
    return layers


def dump(config: object, indent: int = 0, column: int | None = None) -> str:
    """JSON with whatever fits `LINE_LENGTH` columns on one line, as people write it.

    Example:
        >>> dump({"a": [1, 2], "b": {"c": None}})
        '{"a": [1, 2], "b": {"c": null}}'
    """
    flat = json.dumps(config, ensure_ascii=False)
    if (
        len(flat) + (indent if column is None else column) + 1 <= LINE_LENGTH
        or not isinstance(config, dict | list)
        or not config
    ):
        return flat + ("\n" if column is None and indent == 0 and "\n" in flat else "")
    inner = indent + 4
    pad = " " * inner
    if isinstance(config, dict):
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in config]
        parts = [
            pad + key + dump(value, inner, inner + len(key))
            for key, value in zip(keys, config.values(), strict=True)
        ]
    else:
        parts = [pad + dump(value, inner, inner) for value in config]
    opening, closing = ("{", "}") if isinstance(config, dict) else ("[", "]")
    body = ",\n".join(parts)
    return f"{opening}\n{body}\n{' ' * indent}{closing}" + ("\n" if column is None and indent == 0 else "")


def bundle_root(name: str) -> str:
    """Folder of the bundle that is running, from any working directory.

    Looked for in this order: the folder above `configs/` of `--config_file`, the working directory,
    `bundles/` beside the installed sources. `--bundle_root` overrides it, as any value.

    Args:
        name: the bundle's folder name.

    Raises:
        InputError: when none of them is the bundle.
    """
    candidates = [Path(file).resolve().parent.parent for file in _config_files(sys.argv[1:])[:1]]
    candidates += [Path.cwd(), Path(__file__).resolve().parent.parent / "bundles" / name]
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate)
    refuse(name, "a bundle folder with configs/metadata.json", "none", "pass --bundle_root FOLDER")


def start_run(
    root: str, dataset_dir: str | None, *, device: torch.device | str = "cpu", needs_data: bool = True
) -> None:
    """First expression of every config: clear errors, checked overrides, an input and a device that exist.

    Args:
        root: folder of the bundle.
        dataset_dir: what the user passed, if anything.
        device: where the network is to run.
        needs_data: whether to refuse a missing `dataset_dir`.

    Raises:
        InputError: for a misspelt override, a missing input or a device that cannot be used.
    """
    files = _config_files(sys.argv[1:])
    if files and all(Path(file).is_file() for file in files):
        _own_process()
        check_overrides(sys.argv[1:], ConfigParser.load_config_files(files))
    if needs_data and not dataset_dir:
        refuse("dataset_dir", "a folder or file with images", "nothing", "pass --dataset_dir PATH")
    if needs_data and not os.path.lexists(str(dataset_dir)):
        refuse(str(dataset_dir), "a folder or file with images", "no such path", "check --dataset_dir")
    _check_device(device)
    logger.info("bundle %s, volseg on %s threads", root, torch.get_num_threads())


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the second where it has no GPU code at all
        reason = str(error).strip().splitlines()[0]
        refuse("device", "a device that can be used", f"{device} ({reason})", "pass --device cpu, or none")


def check_overrides(arguments: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse an override that names nothing in the config; MONAI adds it silently.

    Args:
        arguments: the command line behind `run`; the file of its `--args_file` is checked too.
        config: the merged config.

    Raises:
        InputError: with the nearest id, or when a part in that file would drop the rest of its component.
    """
    for file, values in _args_files(arguments):
        for name, value in values.items():
            if name not in RUN_ARGUMENTS and not name.startswith("_meta_"):
                identifier = name.lstrip("+").replace("#", "::")
                node = _check_identifier(identifier, config, source=f"{file}: {name}")
                if not name.startswith("+"):
                    _check_whole(f"{file}: {name}", identifier, value, node)
    for argument in arguments:
        if not argument.startswith("--") or len(argument) < 3:
            continue
        identifier = argument[2:].split("=", 1)[0].lstrip("+").replace("#", "::")
        if identifier.replace("-", "_") in RUN_ARGUMENTS or identifier.startswith("_meta_"):
            continue
        _check_identifier(identifier, config, source=f"--{identifier}")


def _check_whole(source: str, identifier: str, value: Any, node: Any) -> None:
    # MONAI replaces the component by the value: whoever nests in JSON would lose all that is not named.
    if not (isinstance(value, dict) and isinstance(node, Mapping)) or "_target_" in value or not value:
        return
    if "_target_" in node or value.keys() < node.keys():
        remedy = f"write each value as {identifier}::{next(iter(value))}"
        refuse(source, f"the whole of {identifier}", f"only {', '.join(value)}", remedy)


def _check_identifier(identifier: str, config: Mapping[str, Any], *, source: str) -> Any:
    node: Any = config
    parts = identifier.split("::")
    for depth, part in enumerate(parts):
        known = _children(node, last=depth == len(parts) - 1)
        if known is None:
            return None
        if part not in known:
            where = "::".join(parts[:depth]) or "this config"
            refuse(source, f"an id of {where}", repr(part), nearest(part, known))
        node = (
            node[int(part)]
            if isinstance(node, list)
            else node.get(part)
            if isinstance(node, Mapping)
            else None
        )
    return node


def _children(node: Any, *, last: bool) -> list[str] | None:
    if isinstance(node, list):
        return [str(index) for index in range(len(node))]
    if not isinstance(node, Mapping):
        return None  # below a reference or an expression anything may be set
    names = [str(key) for key in node]
    if last and "_target_" in node:
        accepted = _parameters(str(node["_target_"]))
        return (
            None if accepted is None else [*names, *accepted, "_disabled_", "_requires_", "_mode_", "_desc_"]
        )
    return names


def _parameters(target: str) -> list[str] | None:
    from monai.bundle.config_item import ComponentLocator

    found = ComponentLocator().get_component_module_name(target)
    path = f"{found[0] if isinstance(found, list) else found}.{target}" if found else target
    component = pydoc.locate(path)
    if not callable(component):
        return None
    parameters = inspect.signature(component).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _config_files(arguments: Sequence[str]) -> list[str]:
    """The config files of a run, named on its command line or in its `--args_file`."""
    named = [values.get("config_file") for _, values in _args_files(arguments)][-1:]
    return _file_list(_option(arguments, "config_file") or named)


def _args_files(arguments: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    files = _file_list(_option(arguments, "args_file"))
    return [(file, ConfigParser.load_config_file(file)) for file in files if Path(file).is_file()]


def _option(arguments: Sequence[str], wanted: str) -> str | None:
    for position, argument in enumerate(arguments):
        name, has_value, value = argument.partition("=")
        if name.lstrip("-").replace("-", "_") == wanted and name.startswith("--"):
            return value if has_value else (list(arguments[position + 1 : position + 2]) or [""])[0]
    return None


def _file_list(given: Any) -> list[str]:
    if isinstance(given, list | tuple):
        return [file for item in given for file in _file_list(item)]
    text = str(given or "").strip()
    return [str(file) for file in ast.literal_eval(text)] if text.startswith("[") else [text] * bool(text)


def _own_process() -> None:
    # Only where the bundle is the program: an application that loads a bundle keeps its own hooks.
    sys.excepthook = _tell_refusal
    # LoadImage makes MONAI's DICOM reader, unused here, which warns that a GPU decoder is not installed.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    # of a run whose cases were all delivered before, which the log says
    warnings.filterwarnings("ignore", message="`dataloader` is empty")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    # What is on disk is whole, and the same command continues from it.
    raise SystemExit(128 + number)


def _tell_refusal(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = None if os.environ.get("VOLSEG_TRACEBACK") else _message_of(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {message}", file=sys.stderr)


def _message_of(error: BaseException) -> str | None:
    """What the user is told instead of a traceback, or nothing for what looks like a fault of the program."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    told = "\n".join(str(link) for link in chain if "Original Traceback" in str(link))
    if in_worker := _WORKER_REFUSAL.search(told):  # of a loader's worker process comes only text
        return in_worker[1].strip()
    refusal = next((link for link in chain if isinstance(link, InputError)), None)
    if refusal is not None:
        return str(refusal)
    root, place = error, ""
    while _is_wrapper(root) and root.__cause__ is not None:
        place = _place_of(root) or place
        root = root.__cause__
    if not (_is_of_config(root) or (root is not error and isinstance(root, _USER_ERRORS))):
        return None
    lines = str(root).strip().splitlines()[:_MOST_LINES] or [type(root).__name__]
    return "\n".join([*lines, f"({place}the environment variable VOLSEG_TRACEBACK=1 shows where)"])


def _place_of(wrapper: BaseException) -> str:
    found = re.search(r"component '([^']+)'", str(wrapper))
    return f"in {found[1]}; " if found else ""


def _is_of_config(error: BaseException) -> bool:
    """Whether MONAI itself raised it while it read a config: an id or a class that does not exist."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return raised_in.startswith("monai.bundle.") or raised_in == "monai.utils.module"


def _is_wrapper(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(_WRAPPERS)


def default_device() -> torch.device:
    """The GPU of this rank when there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def join_ranks(device: torch.device) -> None:
    """Join the process group of `torchrun`: nccl on GPUs, gloo on CPUs.

    Raises:
        InputError: when the process was not started by `torchrun`.
    """
    if "RANK" not in os.environ:
        refuse(
            "this config",
            "to be started by torchrun",
            "a single process",
            "use the config without multi_gpu_",
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend="nccl" if device.type == "cuda" else "gloo")
