"""What takes seconds to make, once in a test session: ONNX files of tiny networks, and a whole training run."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from models.bundle import Bundle
from models.data import load
from models.export import export_onnx
from models.inputs import Inputs
from models.networks import TextNet
from models.prune import keep_layers, prune_blocks
from models.recipe import Recipe
from models.train import run
from tests.unit.tiny import bert, chats, distilbert, one_hot, random_rows, save_encoder, strange_chats, with_contexts


@cache
def exported(base: Path, family: str) -> tuple[TextNet, Path]:
    """A network and its ONNX file, made once in the test session whose base folder this is."""
    nets = {"bert": bert, "distilbert": lambda: keep_layers(distilbert(), [1]), "pruned": _pruned}
    nets |= {"cls": lambda: _pooling_first(bert()), "pruned cls": lambda: _pooling_first(_pruned())}
    net, path = nets[family](), base / f"exported-{family}" / "text.onnx"
    path.parent.mkdir()
    export_onnx(net, path)
    return net, path


def _pooling_first(net: TextNet) -> TextNet:
    net.pooling = "cls"
    return net


def _pruned() -> TextNet:
    """BERT with two layers of three heads and 40 neurons."""
    rows = random_rows(20)
    return prune_blocks(keep_layers(bert(), [0, 2]), rows, one_hot([i % 3 for i in range(20)]), heads=3, neurons=40)


@dataclass(frozen=True)
class Trained:
    """A whole training run: labelled chats with and without contexts in a JSONL file, and what came of them."""

    data: Path
    out: Path
    work: Path
    recipe: Recipe
    bundle: Bundle

    @property
    def run_folder(self) -> Path:
        (folder,) = (path for path in self.work.iterdir() if path.is_dir())
        return folder


@cache
def trained(base: Path) -> Trained:
    """The run of the test session whose base folder this is."""
    folder = base / "trained"
    encoder = save_encoder(folder / "tiny-encoder", num_hidden_layers=2)
    rows = [*chats(120), *strange_chats(30), *with_contexts(60)]
    data = folder / "chats.jsonl"
    data.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    recipe = Recipe(
        encoder=encoder, teachers=2, teacher_epochs=2, student_layers=1, student_epochs=2, recovery_epochs=1,
        noise=1, mixtures=1, heads=2, neurons=32, vocabulary=150, validation=0.25, test=0.25,
    )  # fmt: skip
    out, work = folder / "bundles", folder / "work"
    return Trained(data, out, work, recipe, run(Inputs(load(data), data), recipe, out, work).bundle)
