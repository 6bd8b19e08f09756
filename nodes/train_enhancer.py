"""ID-Enhancer Train Across People, and Save ID-Enhancer."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.dataset import DatasetConfig, PeopleDataset
from ..idea_core.enhancers.draw_dataset import draw_people
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.run import VALIDATE_EVERY, require_trainable, train_enhancer
from ..idea_core.enhancers.trainer import EnhancerTrainConfig
from ..idea_core.faces import FaceEngine
from ..idea_core.files.digest import digest_of
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

_ACROSS, _PEOPLE = EnhancerTrainConfig(), DatasetConfig(names=("nobody",))


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
                int_input("max_people", 10_000, 3, 100_000, "At most so many of the names."),
                advanced(
                    int_input("num_synthetic", 0, 0, 100_000, "So many more people, named by parts of different names.")
                ),
                int_input("images_per_person", _PEOPLE.images_per_person, 3, 1000, "Pictures of each person."),
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
                        "lr",
                        default=_ACROSS.lr,
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
                advanced(
                    int_input("sampling_batch_size", _PEOPLE.sampling_batch_size, 1, 64, "Pictures sampled together.")
                ),
                advanced(
                    float_input(
                        "min_similarity",
                        _PEOPLE.min_similarity,
                        -1.0,
                        1.0,
                        "Pictures less like the person's others are left out.",
                    )
                ),
                advanced(
                    float_input(
                        "val_fraction", _PEOPLE.val_fraction, 0.0, 0.9, "Share of the names that validation uses."
                    )
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
        max_people: int,
        images_per_person: int,
        resolution: int,
        steps: int,
        batch_size: int,
        seed: int,
        num_synthetic: int = 0,
        text_steps: int = _ACROSS.text_steps,
        lr: float = _ACROSS.lr,
        sampling_steps: int = _PEOPLE.sampling_steps,
        guidance: float = _PEOPLE.guidance,
        sampling_batch_size: int = _PEOPLE.sampling_batch_size,
        min_similarity: float = _PEOPLE.min_similarity,
        val_fraction: float = _PEOPLE.val_fraction,
        validate_every: int = VALIDATE_EVERY,
        precision: str = "auto",
        names: str = "",
        prompts: str = "",
        likeness_steps: int = _ACROSS.likeness_steps,
        start: PretrainedEnhancer | None = None,
    ) -> io.NodeOutput:
        require_pair(model, clip, trainable=True)
        require_vae(vae)
        people = DatasetConfig(
            names=parse_names(names)[:max_people],
            num_synthetic=num_synthetic,
            prompts=parse_prompts(prompts),
            images_per_person=images_per_person,
            resolution=resolution,
            sampling_steps=sampling_steps,
            guidance=guidance,
            sampling_batch_size=sampling_batch_size,
            min_similarity=min_similarity,
            val_fraction=val_fraction,
        )
        digest = training_fingerprint(model, clip, vae, [], {"precision": precision})
        folder = saved_path(name).with_suffix("").relative_to(output_folder())
        place = PeopleDataset(people_folder() / folder, people, people.fingerprint(digest, face_digest(face_model)))
        node_id = cls.hidden.unique_id
        if start is not None:
            require(start, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        config = EnhancerTrainConfig(
            steps=steps,
            text_steps=text_steps,
            likeness_steps=likeness_steps,
            batch_size=batch_size,
            seed=seed,
            lr=lr,
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
            enhancer = train_enhancer(
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
    place: PeopleDataset, backbone: ComfyBackbone, engine: FaceEngine | ReloadedEngine, node_id: str | None
) -> None:
    """Make the pictures that are missing, with one person after the other on the node."""
    progress = Progress(len(place.config.all_names), node_id, unit="people")
    for number, images in draw_people(place, backbone, engine):
        progress.show(number + 1, None if images is None else images[:2], done=images is not None)


def _short(
    place: PeopleDataset, config: EnhancerTrainConfig, validate_every: int, start: PretrainedEnhancer | None
) -> str:
    """What keeps trainings with other settings, of other people, or from other Enhancers apart."""
    people, begun = place.config, start.digest() if start else ""
    chosen = people.names, people.num_synthetic, people.min_similarity, people.val_fraction, validate_every, begun
    return digest_of(place.fingerprint, str(sorted(config.as_dict().items())), str(chosen))[:12]
