"""ComfyUI nodes: thin shells over `idea_core`. Nothing outside this folder knows ComfyUI."""
