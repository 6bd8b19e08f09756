"""The paper's equations: anchor, ID-Enhancer, ID-Adapter, key and value changes, regulariser."""
