"""ComfyUI runs this before it loads any pack: libraries read their switches when the first pack imports them."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent / "idea_core" / "quiet.py"))
