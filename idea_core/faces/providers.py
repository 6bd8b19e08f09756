"""What onnxruntime runs on."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FaceError, MissingPackageError

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDER_CHOICES = ("auto", *PROVIDERS)


def require_onnxruntime():
    """onnxruntime.

    Raises:
        MissingPackageError: it is not installed.
    """
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


def choose_providers(choice: str, available: Sequence[str]) -> list[str]:
    """Providers to ask for, none that onnxruntime does not know; the CPU always stands behind the chosen one.

    Raises:
        FaceError: the provider is not there.
    """
    wanted = PROVIDERS.values() if choice == "auto" else [PROVIDERS[choice]]
    usable = [provider for provider in wanted if provider in available]
    if not usable:
        raise FaceError(
            f"onnxruntime with {PROVIDERS[choice]}",
            f"only {', '.join(available)}",
            "Choose auto, or install the extra that brings it.",
        )
    return list(dict.fromkeys([usable[0], PROVIDERS["cpu"]]))
