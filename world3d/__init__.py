"""A world of people in three dimensions, whom networks that others trained on photographs can tell apart."""
