"""Blend ID Embeds and ID Similarity."""

from __future__ import annotations

from math import nan

from comfy_api.v0_0_2 import io

from ..idea_core.faces import FaceSettings, blend
from ..idea_core.faces.likeness import compare
from ..idea_core.faces.plot import draw_likeness
from .comfy.face_models import engine_of
from .comfy.images import first, single_images, to_image, to_uint8
from .common import SHOWS, IdEmbedsSocket, output, require_embeds, schema
from .inputs import face_choice_inputs, face_model_input, face_settings, image_inputs, weight_input, widgets_of


class BlendIDEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_BlendIDEmbeds",
            display_name="Blend ID Embeds",
            description="Blends the face embeddings of two people into a new face.",
            inputs=[
                IdEmbedsSocket.Input(
                    "first", tooltip="Face embeddings of the first person (weight 0), from ID Encode."
                ),
                IdEmbedsSocket.Input(
                    "second", tooltip="Face embeddings of the second person (weight 1), from ID Encode."
                ),
                weight_input(
                    "Position between the two faces: 0 is the first, 1 the second. Similarity changes evenly."
                ),
            ],
            outputs=[output(IdEmbedsSocket, "ID_EMBEDS", "The blended face, for Instant ID-EA Embedding.")],
        )

    @classmethod
    def execute(cls, first, second, weight: float) -> io.NodeOutput:
        require_embeds(first)
        require_embeds(second)
        return io.NodeOutput(blend(first, second, weight))


class IDSimilarity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_IDSimilarity",
            **SHOWS,
            display_name="ID Similarity",
            description="Measures face similarity between images and a person: similarity to the mean embedding (a "
            "cosine), and percent of the similarity between the person's own photos.",
            is_input_list=True,
            inputs=[
                face_model_input(),
                *image_inputs(
                    "Images to compare: an image, a batch, or a list of any sizes.",
                    "More images to compare, of any size.",
                ),
                IdEmbedsSocket.Input(
                    "id_embeds",
                    tooltip="Face embeddings of the person, from ID Encode. Two or more photos set the scale: their "
                    "similarity to each other is 100 %.",
                ),
                IdEmbedsSocket.Input(
                    "others",
                    optional=True,
                    tooltip="Face embeddings of other people, from ID Encode. Their similarity to the person is 0 %. "
                    "Without them a cosine of 0 is 0 %.",
                ),
                *face_choice_inputs(),
                *widgets_of(FaceSettings, "aligned", optional=True),
            ],
            outputs=[
                output(
                    io.Image, "sorted", "Images, most similar first. Images without a face come last.", is_list=True
                ),
                output(
                    io.Float,
                    "scores",
                    "Similarity to the mean embedding of each sorted image; 0 without a face.",
                    is_list=True,
                ),
                output(io.Float, "mean", "Mean similarity of the images with a face; 0 if none has one."),
                output(io.Float, "detection_rate", "Share of images with a face."),
                output(
                    io.Float,
                    "percent",
                    "Mean similarity in percent. NaN without a face, with one reference photo, or if the "
                    "reference photos look like different people.",
                ),
                output(io.Image, "plot", "Chart of the similarities, with lines at 0 % and 100 %."),
                output(io.String, "report", "All results as text."),
            ],
        )

    @classmethod
    def execute(cls, face_model, images, id_embeds, more_images=(), others=None, **choice) -> io.NodeOutput:
        person, others = first(id_embeds), first(others)
        require_embeds(person)
        if others is not None:
            require_embeds(others)
        images = single_images([*images, *more_images])
        pixels = [to_uint8(image) for image in images]
        likeness = compare(engine_of(first(face_model)), pixels, person, others, face_settings(**choice))
        text = likeness.report()
        return io.NodeOutput(
            [images[i][None] for i in likeness.order],
            [likeness.cosines[i] or 0.0 for i in likeness.order],
            likeness.mean or 0.0,
            likeness.detection_rate,
            nan if likeness.percent is None else likeness.percent,
            to_image([draw_likeness(likeness)]),
            text,
            ui={"text": [text]},
        )
