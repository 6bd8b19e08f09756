"""ID-Enhancer Train Across People, and Save ID-Enhancer."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.config import DatasetConfig, EnhancerRunConfig, EnhancerTrainConfig
from ..idea_core.enhancers.dataset import PeopleDataset
from ..idea_core.enhancers.drawing import UsablePeople, draw_people
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.run import EnhancerSpec, require_trainable, train_enhancer
from ..idea_core.identity.place import free_place
from ..idea_core.method.anchor import parse_names
from ..idea_core.text.captions import parse_prompts
from ..idea_core.training.output import Output
from .comfy.backbone import backbone_of
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import ReloadedEngine, engine_of, face_digest
from .comfy.fingerprint import training_fingerprint
from .comfy.models import require_pair, require_vae
from .comfy.notices import said_saved
from .comfy.paths import AUTOSAVE, ENHANCERS, output_folder, people_folder, saved_path
from .comfy.progress import NodeProgress
from .common import EnhancerSocket, described, output, require, schema
from .inputs import advanced, base_model_inputs, configured, face_model_input, prompts_input, widgets_of
from .settings import TrainingSettings

EXPOSED = ("steps", "text_steps", "likeness_steps", "batch_size", "lr", "seed")  # of the settings of a training


class TrainAcross(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_EnhancerTrainAcross",
            display_name="ID-Enhancer Train Across People",
            description="Trains an ID-Enhancer, with which a new person needs no training. The checkpoint draws people "
            "it knows by name, and the ID-Enhancer learns from these images. It takes hours, once per checkpoint. A "
            "cancelled training continues where it stopped.",
            inputs=[
                *base_model_inputs(),
                face_model_input(),
                io.String.Input(
                    "name", default="my_checkpoint", tooltip="Name of the folder for the images, in output/idea-people."
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="one name per line; empty: the list of the pack",
                    tooltip="Names of people that the checkpoint can draw, one per line. Empty: the list of the pack.",
                ),
                prompts_input("name"),
                io.Int.Input(
                    "max_people", default=10_000, min=3, max=100_000, tooltip="Maximum number of names that are used."
                ),
                *widgets_of(DatasetConfig),
                *widgets_of(EnhancerTrainConfig, *EXPOSED),
                *widgets_of(EnhancerRunConfig, "validate_every"),
                *advanced(*widgets_of(TrainingSettings, "precision")),
                EnhancerSocket.Input(
                    "start", optional=True, tooltip="ID-Enhancer of this checkpoint to start from, without text steps."
                ),
            ],
            outputs=[
                output(
                    EnhancerSocket,
                    "ID_ENHANCER",
                    "ID-Enhancer for Instant and Refined ID-EA Embedding, and Save ID-Enhancer.",
                ),
                output(io.String, "report", "Text: people, images, losses, face similarity."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model, clip, vae, face_model, name, max_people, names="", prompts="", start=None, **values
    ) -> io.NodeOutput:
        require_vae(vae, require_pair(model, clip, trainable=True))
        require(start, PretrainedEnhancer | None, EnhancerSocket, "Load ID-Enhancer")
        people = configured(
            DatasetConfig, values, names=parse_names(names)[:max_people], prompts=parse_prompts(prompts)
        )
        config = replace(configured(EnhancerTrainConfig, values), likeness_guidance=people.guidance)
        run, precision = configured(EnhancerRunConfig, values), configured(TrainingSettings, values).precision
        digest = training_fingerprint(model, clip, vae, [], {"precision": precision})
        folder = saved_path(name).with_suffix("").relative_to(output_folder())
        dataset = PeopleDataset(people_folder() / folder, people, people.fingerprint(digest, face_digest(face_model)))
        spec = EnhancerSpec(dataset, config, run.validate_every, start)
        path = output_folder() / ENHANCERS / AUTOSAVE / f"{folder}-{spec.fingerprint[:12]}.safetensors"
        node_id = cls.hidden.unique_id
        with (
            checkpoint_meanwhile(cls.hidden.prompt, node_id) as base,
            backbone_of(model, clip, vae, precision) as backbone,
        ):
            # The likeness loss keeps the engine: nothing may push the UNet out between an image and its gradients.
            engine = engine_of(face_model) if config.likeness_steps else ReloadedEngine(face_model)
            require_trainable(backbone, engine, config, start, **base())
            drawing = NodeProgress(len(people.all_names), node_id, unit="people")
            usable = UsablePeople(dataset)
            for number, images in draw_people(dataset, backbone, engine):
                usable.add(number)
                shown = None if images is None else images[:2]
                drawing.show(number + 1, shown, images is not None, f", {usable.count} usable")
            training = NodeProgress(config.steps, node_id)
            file = Output(path, spec.fingerprint, run.save_every, base=base)
            enhancer = train_enhancer(backbone, spec, engine, file, lambda done: training.show(done.step, None))
        return io.NodeOutput(enhancer, described(enhancer.training))


class SaveEnhancer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_SaveEnhancer",
            display_name="Save ID-Enhancer",
            description="Writes an ID-Enhancer to output/idea/enhancers, where Load ID-Enhancer finds it.",
            inputs=[
                EnhancerSocket.Input(
                    "enhancer", tooltip="ID-Enhancer from ID-Enhancer Train Across People or Load ID-Enhancer."
                ),
                io.String.Input(
                    "filename",
                    default="my_checkpoint",
                    tooltip="File name in output/idea/enhancers. If the file holds an ID-Enhancer of another "
                    "checkpoint, the new one gets a number.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, enhancer: PretrainedEnhancer, filename: str) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "ID-Enhancer Train Across People")
        wanted = output_folder() / ENHANCERS / saved_path(filename).relative_to(output_folder())
        path = free_place(wanted, enhancer, PretrainedEnhancer.load, lambda one, other: one.base_ref == other.base_ref)
        enhancer.save(path)
        text = said_saved("ID-Enhancer", path, wanted, "the ID-Enhancer of another checkpoint")
        return io.NodeOutput(ui={"text": [text]})
