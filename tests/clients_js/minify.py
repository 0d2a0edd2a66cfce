"""clients/js/minify.py, which is no module of a package."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import cast

_SCRIPT = Path(__file__).resolve().parents[2] / "clients" / "js" / "minify.py"

minify = cast("Callable[[str], str]", runpy.run_path(str(_SCRIPT))["minify"])
