"""How ComfyUI is reached: models, text, patches, paths, progress."""
