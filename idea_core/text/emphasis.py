"""Weights in prompts, as ComfyUI reads them: `(…:1.3)`, `(…)` for 1.1 times as much, `\\(` and `\\)` for the signs."""

from __future__ import annotations

from collections.abc import Iterator

MORE = 1.1  # factor of brackets without a weight on the weight around them


def weighted_texts(prompt: str) -> list[tuple[str, float]]:
    """A prompt's texts in order, each with its weight; one of weight 1 where nothing is weighed.

    A written weight replaces the weight around it. Brackets without their counterpart are text.
    """
    texts: list[tuple[str, float]] = []
    escaped = prompt.replace("\\(", "\0[").replace("\\)", "\0]")
    stack = [(escaped, 1.0, True)]  # text, weight, whether there may be brackets in it
    while stack:
        text, weight, bracketed = stack.pop()
        if bracketed:
            stack += reversed([_weighed(piece, weight) for piece in _pieces(text)])
        else:
            texts.append((text.replace("\0[", "(").replace("\0]", ")"), weight))
    return texts


def _pieces(text: str) -> Iterator[str]:
    """The text in order, cut at its outermost brackets; a piece in brackets keeps them."""
    start = depth = 0
    for place, sign in enumerate(text):
        if sign == "(":
            if depth == 0 and start < place:
                yield text[start:place]
                start = place
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                yield text[start : place + 1]
                start = place + 1
    if start < len(text):
        yield text[start:]


def _weighed(piece: str, weight: float) -> tuple[str, float, bool]:
    """A piece without its brackets, its weight, and whether it had any."""
    if len(piece) < 2 or piece[0] != "(" or piece[-1] != ")":
        return piece, weight, False
    inner = piece[1:-1]
    text, _colon, number = inner.rpartition(":")
    try:
        return (text, float(number), True) if text else (inner, MORE * weight, True)
    except ValueError:
        return inner, MORE * weight, True
