"""`volseg bake`: layers of bundles into self-contained configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.checks import refuse


def bake(
    bundles: Annotated[
        Path, typer.Argument(help="Folder of the bundles and of _shared, or one bundle.", show_default=True)
    ] = Path("bundles"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a baked config is out of date.")
    ] = False,
) -> None:
    """Merge src/common.json, the shared wiring and src/<workflow>.json of each bundle into configs/*.json.

    Example: volseg bake bundles/kidney_vessels
    """
    from volseg.bundles import bake as bake_bundle
    from volseg.bundles import baked_configs

    folders = (
        [bundles] if (bundles / "src").is_dir() else sorted(path.parent for path in bundles.glob("*/src"))
    )
    if not folders:
        refuse(
            bundles,
            "a bundle, or a folder of bundles",
            "neither",
            "run it in the repository, or pass the folder",
        )
    for folder in folders:
        if not check:
            for path in bake_bundle(folder):
                typer.echo(path)
            continue
        for name, text in baked_configs(folder).items():
            path = folder / "configs" / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                refuse(path, "the config baked from its layers", "another one", f"run: volseg bake {folder}")
