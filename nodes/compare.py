"""Blend ID Embeds and ID Similarity."""

from __future__ import annotations

from math import nan

from comfy_api.v0_0_2 import io

from ..idea_core.faces import blend
from ..idea_core.faces.likeness import compare
from ..idea_core.faces.plot import draw_likeness
from .comfy.face_models import engine_of
from .comfy.images import first, single_images, to_image, to_uint8
from .common import CATEGORY, SHOWS
from .face_inputs import aligned_input, face_choice_inputs, face_model_input, face_settings, more_images_input
from .sockets import IdEmbedsSocket, require_embeds


class BlendIDEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_BlendIDEmbeds",
            display_name="Blend ID Embeds",
            category=CATEGORY,
            description="A new face between two people's.",
            inputs=[
                IdEmbedsSocket.Input("first", tooltip="From ID Encode: the person at weight 0."),
                IdEmbedsSocket.Input("second", tooltip="From ID Encode: the person at weight 1."),
                io.Float.Input(
                    "weight",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far to go from the first to the second, in equal steps of likeness.",
                ),
            ],
            outputs=[
                IdEmbedsSocket.Output(
                    "id_embeds", display_name="ID_EMBEDS", tooltip="The face between, for Instant ID-EA Embedding."
                ),
            ],
        )

    @classmethod
    def execute(cls, first, second, weight: float) -> io.NodeOutput:
        require_embeds(first)
        require_embeds(second)
        return io.NodeOutput(blend(first, second, weight))


class IDSimilarity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_IDSimilarity",
            **SHOWS,
            display_name="ID Similarity",
            category=CATEGORY,
            description="How like a person the faces in images are: similarity to the mean embedding (a cosine), and "
            "percent on the scale of the person's own photos.",
            is_input_list=True,
            inputs=[
                face_model_input(),
                io.Image.Input("images", tooltip="Pictures to judge; a list may have any sizes."),
                more_images_input("More pictures to judge, of any size."),
                IdEmbedsSocket.Input(
                    "id_embeds",
                    tooltip="The person, from ID Encode. With two or more photos there is a scale: each photo's "
                    "likeness to the others is 100 %.",
                ),
                IdEmbedsSocket.Input(
                    "others",
                    optional=True,
                    tooltip="Photos of other people, from ID Encode: their likeness to the person is 0 %. "
                    "Without them a cosine of 0 is.",
                ),
                *face_choice_inputs(),
                aligned_input(),
            ],
            outputs=[
                io.Image.Output(
                    "sorted",
                    display_name="sorted",
                    is_output_list=True,
                    tooltip="The images, best first; those without a face come last.",
                ),
                io.Float.Output(
                    "scores",
                    display_name="scores",
                    is_output_list=True,
                    tooltip="Similarity to the mean embedding of each sorted image; 0 without a face.",
                ),
                io.Float.Output(
                    "mean", display_name="mean", tooltip="Mean similarity of the images with a face; 0 if none has one."
                ),
                io.Float.Output(
                    "detection_rate", display_name="detection_rate", tooltip="Share of images with a face."
                ),
                io.Float.Output(
                    "percent",
                    display_name="percent",
                    tooltip="The mean in percent; not a number without a scale (one reference photo, or photos that "
                    "look like several people) or without a face.",
                ),
                io.Image.Output("plot", display_name="plot", tooltip="Each image's similarity, between 0 % and 100 %."),
                io.String.Output("report", display_name="report", tooltip="All of it as text."),
            ],
        )

    @classmethod
    def execute(cls, face_model, images, id_embeds, more_images=(), others=None, **choice) -> io.NodeOutput:
        person, strangers = first(id_embeds), first(others)
        for embeds in (person, *([] if strangers is None else [strangers])):
            require_embeds(embeds)
        shown = single_images([*images, *more_images])
        pictures = [to_uint8(image) for image in shown]
        likeness = compare(engine_of(first(face_model)), pictures, person, strangers, face_settings(**choice))
        text = likeness.report()
        return io.NodeOutput(
            [shown[i][None] for i in likeness.order],
            [likeness.cosines[i] or 0.0 for i in likeness.order],
            likeness.mean or 0.0,
            likeness.detection_rate,
            nan if likeness.percent is None else likeness.percent,
            to_image([draw_likeness(likeness)]),
            text,
            ui={"text": [text]},
        )
