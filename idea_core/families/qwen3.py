"""The language model Qwen3 as a text encoder, which several families share."""

QWEN3_STAND_INS = ("<|fim_pad|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_prefix|>", "<|repo_name|>", "<|file_sep|>")
"""Tokens of code completion, which no prompt holds."""
QWEN3_BLOCK = "TransformerBlock"
"""Class of its blocks in ComfyUI."""
