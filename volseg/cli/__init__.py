"""The command `volseg`: one file per command, each a thin call into the library.

Nothing heavy is imported before a command runs, so that `volseg --help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import typer

from volseg.checks import InputError
from volseg.cli.audit import audit
from volseg.cli.bake import bake
from volseg.cli.demo import demo
from volseg.cli.export import export
from volseg.cli.prepare import prepare
from volseg.cli.score import score

__all__ = ["app", "main"]

app = typer.Typer(
    name="volseg",
    help="Segment medical volumes slice-wise, think in 3D.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Segment medical volumes slice-wise, think in 3D."""


app.command("audit")(audit)
app.command("bake")(bake)
app.command("demo")(demo)
app.command("prepare")(prepare)
app.command("score")(score)
app.add_typer(export, name="export")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a refused input or a failing disk ends in one message and exit code 1.

    With `VOLSEG_TRACEBACK=1` in the environment the traceback is shown instead of the message.

    Args:
        arguments: the words after `volseg`; those of the process by default.

    Raises:
        SystemExit: always, with the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not fit the terminal's encoding
    try:
        app(args=None if arguments is None else list(arguments), prog_name="volseg")
    except (
        InputError,
        OSError,
    ) as error:  # an OSError names its file: a full disk, a folder that is read-only
        if os.environ.get("VOLSEG_TRACEBACK") == "1":
            raise
        print(f"volseg: {error}", file=sys.stderr)
        sys.exit(1)
