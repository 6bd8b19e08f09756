"""The same people and pictures under a flow-matching transformer that reads a language model, as Z-Image does."""
