"""A recorder for devices that record nothing; in ComfyUI's process too."""

from contextlib import nullcontext


class ByComputing:
    """Records nothing, and computes the same on the same buffers again.

    Args:
        change: of what a recording gives.
    """

    def __init__(self, change=lambda result: result):
        self.change, self.recorded, self.bytes = change, 0, 0

    def warming(self):
        return nullcontext()

    def forget(self):
        self.bytes = 0

    def record(self, compute):
        self.recorded, self.bytes = self.recorded + 1, self.bytes + 1
        return lambda: self.change(compute().clone())
