"""ID-Enhancer Train Across People, and Save ID-Enhancer."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.dataset import PeopleConfig, PeopleFolder, digest_of
from ..idea_core.enhancers.draw_dataset import draw_people
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.run import VALIDATE_EVERY, learn_people, require_trainable
from ..idea_core.enhancers.trainer import AcrossConfig
from ..idea_core.faces import FaceEngine
from ..idea_core.method.anchor import parse_names
from ..idea_core.text.captions import parse_prompts
from .comfy.backbone import ComfyBackbone
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import ReloadedEngine, engine_of, face_digest
from .comfy.fingerprint import training_fingerprint
from .comfy.models import require_pair, require_vae
from .comfy.paths import AUTOSAVE, ENHANCERS, output_folder, people_folder, saved_path
from .faces import CATEGORY, face_model_input
from .inputs import (
    OF_PICTURES,
    advanced,
    base_model_inputs,
    float_input,
    int_input,
    precision_input,
    prompts_input,
    resolution_input,
    seed_input,
)
from .sockets import EnhancerSocket, require
from .train import described
from .training_job import Progress

_ACROSS, _PEOPLE = AcrossConfig(), PeopleConfig(names=("nobody",))


class TrainAcross(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_EnhancerTrainAcross",
            display_name="ID-Enhancer Train Across People",
            category=CATEGORY,
            description="Lets the checkpoint draw people whom it knows by name, and learns from those pictures what a "
            "face means to it: then a new person needs no training. Once per checkpoint, for hours; cancel it whenever "
            "you like, it goes on where it stopped.",
            inputs=[
                *base_model_inputs(),
                face_model_input(),
                io.String.Input(
                    "name", default="my_checkpoint", tooltip="The pictures are kept in output/idea-people/NAME."
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="People whom the checkpoint can draw, one a line. Empty: the list of the pack.",
                ),
                prompts_input("name"),
                int_input("most_people", 10_000, 3, 100_000, "At most so many of the names."),
                advanced(
                    int_input("invented", 0, 0, 100_000, "So many more people, named by parts of different names.")
                ),
                int_input("per_person", _PEOPLE.per_person, 3, 1000, "Pictures of each person."),
                resolution_input(OF_PICTURES),
                int_input("steps", _ACROSS.steps, 1, 1_000_000, "Steps of the training."),
                advanced(
                    int_input(
                        "text_steps",
                        _ACROSS.text_steps,
                        0,
                        1_000_000,
                        "Of these, so many first ones learn by text alone, without the UNet.",
                    )
                ),
                int_input("batch_size", _ACROSS.batch_size, 1, 512, "Pictures per step; by text four times as many."),
                advanced(
                    io.Float.Input(
                        "rate",
                        default=_ACROSS.rate,
                        min=0.0,
                        max=1.0,
                        step=1e-5,
                        round=False,
                        tooltip="Learning rate by pictures. Lower it if the training diverges.",
                    )
                ),
                seed_input("Of all random choices of the training; the pictures have seeds of their own."),
                advanced(
                    int_input("sampling_steps", _PEOPLE.sampling_steps, 1, 200, "Sampling steps of each picture.")
                ),
                advanced(float_input("guidance", _PEOPLE.guidance, 0.0, 30.0, "Guidance (cfg) of the pictures.")),
                advanced(int_input("at_once", _PEOPLE.at_once, 1, 64, "Pictures sampled together.")),
                advanced(
                    float_input(
                        "agreement",
                        _PEOPLE.agreement,
                        -1.0,
                        1.0,
                        "Pictures less like the person's others are left out.",
                    )
                ),
                advanced(
                    float_input("held_out", _PEOPLE.held_out, 0.0, 0.9, "Share of the names that validation uses.")
                ),
                advanced(
                    int_input(
                        "validate_every",
                        VALIDATE_EVERY,
                        0,
                        100_000,
                        "Steps between two looks at people held out. When their likeness falls, the training ends, at "
                        "its best. 0: none.",
                    )
                ),
                advanced(precision_input()),
                advanced(
                    int_input(
                        "likeness_steps",
                        _ACROSS.likeness_steps,
                        0,
                        1_000_000,
                        "Of the steps, so many last ones draw people and ask the FACE_MODEL how like they are. Instant "
                        "people resemble their photos more then; each such step takes many times as long, and wants a "
                        "large batch.",
                        optional=True,  # the last widget: workflows hold values by their places
                    )
                ),
                EnhancerSocket.Input(
                    "start",
                    optional=True,
                    tooltip="An ID-Enhancer for this checkpoint, to go on from, without text_steps.",
                ),
            ],
            outputs=[
                EnhancerSocket.Output(
                    "enhancer",
                    display_name="ID_ENHANCER",
                    tooltip="For Instant and Refined ID-EA Embedding, and Save ID-Enhancer.",
                ),
                io.String.Output("report", display_name="report", tooltip="People, pictures, losses, likeness."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        face_model,
        name: str,
        most_people: int,
        per_person: int,
        resolution: int,
        steps: int,
        batch_size: int,
        seed: int,
        invented: int = 0,
        text_steps: int = _ACROSS.text_steps,
        rate: float = _ACROSS.rate,
        sampling_steps: int = _PEOPLE.sampling_steps,
        guidance: float = _PEOPLE.guidance,
        at_once: int = _PEOPLE.at_once,
        agreement: float = _PEOPLE.agreement,
        held_out: float = _PEOPLE.held_out,
        validate_every: int = VALIDATE_EVERY,
        precision: str = "auto",
        names: str = "",
        prompts: str = "",
        likeness_steps: int = _ACROSS.likeness_steps,
        start: PretrainedEnhancer | None = None,
    ) -> io.NodeOutput:
        require_pair(model, clip, trainable=True)
        require_vae(vae)
        people = PeopleConfig(
            names=parse_names(names)[:most_people],
            invented=invented,
            prompts=parse_prompts(prompts),
            per_person=per_person,
            resolution=resolution,
            sampling_steps=sampling_steps,
            guidance=guidance,
            at_once=at_once,
            agreement=agreement,
            held_out=held_out,
        )
        digest = training_fingerprint(model, clip, vae, [], {"precision": precision})
        folder = saved_path(name).with_suffix("").relative_to(output_folder())
        place = PeopleFolder(people_folder() / folder, people, people.fingerprint(digest, face_digest(face_model)))
        node_id = cls.hidden.unique_id
        if start is not None:
            require(start, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        config = AcrossConfig(
            steps=steps,
            text_steps=text_steps,
            likeness_steps=likeness_steps,
            batch_size=batch_size,
            seed=seed,
            rate=rate,
            likeness_guidance=guidance,
        )
        file = (
            output_folder()
            / ENHANCERS
            / AUTOSAVE
            / folder.with_name(f"{folder.name}-{_short(place, config, validate_every, start)}.safetensors")
        )
        with (
            checkpoint_meanwhile(cls.hidden.prompt, node_id) as hashed,
            ComfyBackbone(model, clip, vae, precision) as backbone,
        ):
            # Held for likeness: between a picture and its gradients nothing may push the UNet out.
            engine = engine_of(face_model) if likeness_steps else ReloadedEngine(face_model)
            checkpoint, base_hash = hashed()
            require_trainable(backbone, engine, config, start, checkpoint, base_hash)
            _draw(place, backbone, engine, node_id)
            progress = Progress(steps, node_id)
            enhancer = learn_people(
                place,
                backbone,
                engine,
                config,
                file,
                save_every=200,
                validate_every=validate_every,
                on_step=lambda step, _loss: progress.show(step, None),
                start=start,
                base_checkpoint=checkpoint,
                base_hash=base_hash,
            )
        return io.NodeOutput(enhancer, described(enhancer.training))


class SaveEnhancer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_SaveEnhancer",
            display_name="Save ID-Enhancer",
            category=CATEGORY,
            description="Writes an ID-Enhancer to output/idea/enhancers, where Load ID-Enhancer finds it.",
            inputs=[
                EnhancerSocket.Input("enhancer", tooltip="From ID-Enhancer Train Across People or Load ID-Enhancer."),
                io.String.Input("filename", default="my_checkpoint", tooltip="File name below output/idea/enhancers."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, enhancer: PretrainedEnhancer, filename: str) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "ID-Enhancer Train Across People")
        path = output_folder() / ENHANCERS / saved_path(filename).relative_to(output_folder())
        enhancer.save(path)
        logging.info("ID-EA: saved an ID-Enhancer to %s", path)
        return io.NodeOutput(ui={"text": [str(path)]})


def _draw(
    place: PeopleFolder, backbone: ComfyBackbone, engine: FaceEngine | ReloadedEngine, node_id: str | None
) -> None:
    """Make the pictures that are missing, with one person after the other on the node."""
    progress = Progress(len(place.config.everybody), node_id, unit="people")
    for number, images in draw_people(place, backbone, engine):
        progress.show(number + 1, None if images is None else images[:2], done=images is not None)


def _short(place: PeopleFolder, config: AcrossConfig, validate_every: int, start: PretrainedEnhancer | None) -> str:
    """What keeps trainings with other settings, of other people, or from other Enhancers apart."""
    people, begun = place.config, start.digest if start else ""
    chosen = people.names, people.invented, people.agreement, people.held_out, validate_every, begun
    return digest_of(place.fingerprint, str(sorted(config.as_dict().items())), str(chosen))[:12]
