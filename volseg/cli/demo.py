"""`volseg demo`: the main job end to end on generated data."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from volseg.checks import refuse

BUNDLE = "kidney_vessels"
SHAPE = (112, 112, 80)


def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder of everything the demo writes.")] = Path(
        "demo_run"
    ),
    epochs: Annotated[int, typer.Option(help="Epochs of training; more gives better vessels.", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="Of the phantoms and the training.")] = 0,
) -> None:
    """Generate kidney-like vessels, train, evaluate, predict a held-out volume, show where everything is.

    Example: volseg demo --output-dir demo_run
    """
    from volseg.data import prepare_sennet, write_sennet_phantom
    from volseg.data.phantoms import HipctSettings

    started = time.monotonic()
    output_dir = output_dir.resolve()
    configs = _configs()
    if output_dir.exists() and any(output_dir.iterdir()):
        refuse(
            output_dir, "a new or empty folder", "one with files", "pass another --output-dir, or remove it"
        )
    raw = output_dir / "phantom"
    _say("1/5 generate", f"16-bit TIFF slices in the challenge's layout: {raw}")
    cases = ("kidney_1_dense", "kidney_3_dense", "kidney_4_dense")
    write_sennet_phantom(raw, shape=SHAPE, cases=cases, seed=seed, settings=HipctSettings())
    prepare_sennet(raw)
    values = [f"--dataset_dir={raw}", "--network_def::features=[16,32,64,96]", f"--seed={seed}"]
    train = output_dir / "training"
    _say(
        "2/5 train",
        f"{epochs} epochs of a small 2.5D U-Net; watch: tensorboard --logdir {train / 'tensorboard'}",
    )
    schedule = [f"--epochs={epochs}", "--samples_per_epoch=320", "--train::roi_size=[96,96]"]
    _bundle(configs / "train.json", *values, *schedule, f"--output_dir={train}")
    weights = f"--ckpt_dir={train / 'models'}"
    _say("3/5 evaluate", "whole validation volume, three axes, eight views")
    _bundle(configs / "evaluate.json", *values, weights, f"--output_dir={output_dir / 'evaluation'}")
    _say("4/5 predict", f"held-out volume: {raw / 'test'}")
    values[0] = f"--dataset_dir={raw / 'test'}"
    predictions = output_dir / "predictions"
    _bundle(configs / "inference.json", *values, weights, f"--output_dir={predictions}")
    _say("5/5 score and draw", "surface Dice at tolerance 0 against the truth that training never saw")
    score = _score_and_draw(raw, predictions, output_dir)
    _tell(output_dir, train, predictions, score, time.monotonic() - started)


def _configs() -> Path:
    folder = Path(__file__).resolve().parents[2] / "bundles" / BUNDLE / "configs"
    if not (folder / "train.json").is_file():
        refuse(folder, "the bundles beside the sources", "none", "install from a clone: pip install -e .")
    return folder


def _bundle(config: Path, *overrides: str) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", f"--config_file={config}", *overrides]
    typer.echo("    " + " ".join(["python", *command[1:]]))
    result = subprocess.run(command, check=False)
    if result.returncode:
        raise typer.Exit(result.returncode)


def _score_and_draw(raw: Path, predictions: Path, output_dir: Path) -> float:
    from volseg.data import read_volume
    from volseg.metrics import compute_surface_dice
    from volseg.reports import draw_agreement, plane_pictures, tile, write_gif, write_png

    case = next((raw / "test").iterdir()).name
    image, geometry = read_volume(raw / "test" / case / "images")
    truth = read_volume(raw / "truth" / case / "labels")[0] > 0
    pred, _ = read_volume(predictions / case / f"{case}_seg.nii.gz")
    write_png(output_dir / "preview.png", tile(list(plane_pictures(image, pred, truth).values())))
    frames = [draw_agreement(image[:, :, z], pred[:, :, z], truth[:, :, z]) for z in range(image.shape[2])]
    write_gif(output_dir / "preview.gif", frames)
    return compute_surface_dice(pred > 0, truth, spacing_mm=geometry.spacing_mm)


def _tell(output_dir: Path, train: Path, predictions: Path, score: float, seconds: float) -> None:
    typer.echo(
        f"\nsurface Dice of the held-out volume: {score:.3f}   ({seconds:.0f} s in all)\n"
        f"NIfTI predictions   {predictions}\n"
        f"preview             {output_dir / 'preview.png'}   {output_dir / 'preview.gif'}\n"
        f"weights             {train / 'models' / 'model.pt'}\n"
        f"curves and images   tensorboard --logdir {train / 'tensorboard'}\n"
        f"scores              {output_dir / 'evaluation' / 'scores.csv'}"
    )


def _say(step: str, what: str) -> None:
    typer.secho(f"\n[{step}] {what}", bold=True)
