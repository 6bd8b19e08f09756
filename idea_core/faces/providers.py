"""Execution providers: the hardware that onnxruntime runs on."""

from __future__ import annotations

from types import ModuleType

from ..errors import FaceError, MissingPackageError

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDER_CHOICES = ("auto", *PROVIDERS)


def require_onnxruntime() -> ModuleType:
    """onnxruntime, or `MissingPackageError` if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            "onnxruntime to be installed",
            f"no {error.name}",
            "Install an extra of id-ea with ComfyUI's Python, in the pack's folder: "
            'python -m pip install ".[face-cpu]" (face-gpu, face-directml: see "Install" in the README).',
        ) from error
    return onnxruntime


def choose_providers(choice: str) -> list[str]:
    """The providers for a session, all available in onnxruntime; the CPU is always the fallback.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FaceError: the provider is not available.
    """
    available = require_onnxruntime().get_available_providers()
    wanted = PROVIDERS.values() if choice == "auto" else [PROVIDERS[choice]]
    usable = [provider for provider in wanted if provider in available]
    if not usable:
        raise FaceError(
            f"onnxruntime with {PROVIDERS[choice]}",
            f"only {', '.join(available)}",
            "Choose auto, or install the extra that brings it.",
        )
    return list(dict.fromkeys([usable[0], PROVIDERS["cpu"]]))
