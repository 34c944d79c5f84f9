"""Example modules are imported as `wallaroo run` does it: from their own folder."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"

sys.path += [str(folder) for folder in sorted(EXAMPLES.iterdir()) if folder.is_dir()]
