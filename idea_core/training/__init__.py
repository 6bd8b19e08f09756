"""Training one person."""
