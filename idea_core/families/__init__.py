"""Base models: what differs between SD 1.x, SD 2.x and SDXL."""
