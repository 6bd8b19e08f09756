"""A small base model as an ordinary Stable Diffusion 1.x checkpoint that computes the same."""
