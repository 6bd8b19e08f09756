"""What the trainers ask of a base model, and what they compute with its noise schedule and memory."""
