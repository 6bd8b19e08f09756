"""Reading and writing files: tensors, foreign weights, text."""
