"""Prompts, captions and names, up to the ids that text encoders read."""
