"""The front end without ComfyUI: diffusers, jobs from files to files, the `idea` command."""
