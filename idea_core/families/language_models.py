"""Language models as text encoders, which several families share: tokens that no prompt holds, and ComfyUI's blocks."""

QWEN3_STAND_INS = ("<|fim_pad|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_prefix|>", "<|repo_name|>", "<|file_sep|>")
"""Tokens of code completion."""
QWEN3_BLOCK = "TransformerBlock"
T5_STAND_INS = tuple(f"<extra_id_{number}>" for number in range(8))
"""Tokens that stand for left-out text in T5's own training."""
T5_BLOCK = "T5Block"
