"""Flow-matching transformers that read a language model, as diffusers runs them: Z-Image, FLUX.2 Klein."""
