"""Likeness as a loss: the base model draws the person, and the face recogniser says how like the face is.

Gradients go back from the recogniser through the picture and its sampling to what is trained, as rewards do in DRaFT
(arXiv 2309.17400).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.sampling import empty_prompt, sample
from ..faces import FaceEngine
from ..faces.score import only, pick_faces
from ..faces.torch_recogniser import TorchRecogniser
from ..families import BASE_MODELS
from ..images import to_pixels


class LikenessSettings(Protocol):
    """What a training's settings say of the likeness loss."""

    @property
    def likeness_sampling_steps(self) -> int: ...

    @property
    def likeness_guidance(self) -> float: ...


class LikenessLoss:
    """Pictures of few sampling steps, and the faces in them.

    Args:
        engine: finds faces; its recogniser is read into torch.
        sampling_steps: of each picture.
        guidance: scale of classifier-free guidance.

    Raises:
        MissingPackageError, FaceError: as `TorchRecogniser`.
    """

    def __init__(self, backbone: Backbone, engine: FaceEngine, sampling_steps: int, guidance: float):
        self._backbone, self._engine = backbone, engine
        self._steps, self._guidance = sampling_steps, guidance
        self._recogniser = TorchRecogniser(engine.recogniser_file).to(backbone.device)
        self._negative = empty_prompt(backbone)
        with torch.no_grad():
            # The VAE comes into memory now, not when it could push out what a picture's gradients need.
            channels = BASE_MODELS[backbone.base_model].latent_channels
            backbone.decode_with_gradients(torch.zeros(1, channels, 8, 8, device=backbone.device))

    @classmethod
    def of(cls, backbone: Backbone, engine: FaceEngine, config: LikenessSettings) -> LikenessLoss:
        """What a training with these settings needs."""
        return cls(backbone, engine, config.likeness_sampling_steps, config.likeness_guidance)

    def __call__(self, condition: TextCondition, noise: Tensor, face: Tensor) -> Tensor:
        """Mean of 1 − similarity to the mean embedding of the one face in each image; 1 where there is not one.

        Args:
            face: who, L2-normalised: (512,), or (B, 512) of each picture.
            condition: of each picture.
            noise: (B, c, h, w), standard normal, that the pictures are drawn from.
        """
        latents = sample(self._backbone, condition, self._negative, noise, self._steps, self._guidance)
        images = self._backbone.decode_with_gradients(latents)
        faces = pick_faces(self._engine, to_pixels(images.detach().cpu()), only)
        clear = [number for number, face_there in enumerate(faces) if face_there is not None]
        if not clear:
            return 1 + 0 * images.sum()
        keypoints = torch.stack([torch.from_numpy(one.keypoints).float() for one in faces if one is not None])
        drawn = self._recogniser.embed(images[clear], keypoints.to(images.device))
        wanted = face.to(drawn).expand(len(images), -1)[clear]
        return 1 - (drawn * wanted).sum() / len(images)
