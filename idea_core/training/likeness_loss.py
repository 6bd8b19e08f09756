"""The likeness loss: the base model draws the person, and the face recogniser measures the face similarity.

Gradients flow from the recogniser through the image and its sampling to what is trained, as in DRaFT (arXiv
2309.17400).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.sampling import empty_prompt, sample
from ..faces import FaceEngine
from ..faces.score import only, pick_faces
from ..faces.torch_recogniser import TorchRecogniser
from ..families import BASE_MODELS
from ..images import to_pixels


class LikenessLoss:
    """Face similarity as a loss, on images of few sampling steps.

    Args:
        engine: finds faces; its recogniser is read into torch.
        sampling_steps: of each image.
        guidance: scale of classifier-free guidance.

    Attributes:
        negative: the empty prompt, which guidance leads away from.
    """

    def __init__(self, backbone: Backbone, engine: FaceEngine, sampling_steps: int, guidance: float):
        self._backbone, self._engine = backbone, engine
        self._steps, self._guidance = sampling_steps, guidance
        self._recogniser = TorchRecogniser(engine.recogniser_file).to(backbone.device)
        self.negative = empty_prompt(backbone)
        with torch.no_grad():
            # Load the VAE now; later it could push out what an image's gradients need.
            channels = BASE_MODELS[backbone.base_model].latent_channels
            backbone.decode_with_gradients(torch.zeros(1, channels, 8, 8, device=backbone.device))

    def __call__(self, condition: TextCondition, noise: Tensor, id_embeds: Tensor) -> Tensor:
        """Mean of 1 − the face's similarity to `id_embeds`; 1 for an image without exactly one face.

        Args:
            condition: of each image.
            noise: (B, c, h, w), standard normal; the images start from it.
            id_embeds: wanted face, L2-normalised: (512,), or (B, 512), one for each image.
        """
        return self.of(self.drawn(condition, noise), id_embeds)

    def drawn(self, condition: TextCondition, noise: Tensor) -> Tensor:
        """Latents (B, c, h, w) of the images.

        Of first order: at so few steps DPM-Solver++ 2M draws faces less alike, and its gradients agree less with those
        of many steps.
        """
        return sample(self._backbone, condition, self.negative, noise, self._steps, self._guidance)

    def of(self, latents: Tensor, id_embeds: Tensor) -> Tensor:
        """The loss of images that are drawn."""
        images = self._backbone.decode_with_gradients(latents)
        picked = pick_faces(self._engine, list(to_pixels(images.detach().cpu())), only)
        faces = {number: face for number, face in enumerate(picked) if face is not None}
        if not faces:
            return 1 + 0 * images.sum()
        keypoints = torch.stack([torch.from_numpy(face.keypoints).float() for face in faces.values()])
        drawn = self._recogniser.embed(images[list(faces)], keypoints.to(images.device))
        wanted = id_embeds.to(drawn).expand(len(images), -1)[list(faces)]
        return 1 - (drawn * wanted).sum() / len(images)
