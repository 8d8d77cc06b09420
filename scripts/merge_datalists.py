"""Make one prepared data set out of several, without copying an image.

Example:
    python scripts/merge_datalists.py prepared/fundus prepared/chase --output_dir prepared/both
"""

from __future__ import annotations

import argparse
from pathlib import Path

from volseg.data import merge_datalists


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders with a datalist.json each")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the merged datalist.json")
    parser.add_argument("--overwrite", action="store_true", help="replace a datalist.json that is there")
    arguments = parser.parse_args()
    merged = merge_datalists(arguments.folders, arguments.output_dir, overwrite=arguments.overwrite)
    print(f"{arguments.output_dir}: {len(merged.training)} training and {len(merged.test)} test cases")


if __name__ == "__main__":
    main()
