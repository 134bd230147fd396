"""Distil the teachers into a student.

The loss follows Hinton, Vinyals & Dean (2015): the teachers' mean distribution at a temperature, beside the labels'
own, plus the cosine distance between the pooled last hidden states where the widths are equal (Sanh et al., 2019).
A student starts from layers of the first teacher, from a pretrained small encoder, or from nothing.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel

from features.preprocess import Ids, Preprocessor
from models.networks import Floats, TextNet, bare, load_encoder
from models.optimise import Schedule, optimise
from models.prune import important_layers, keep_layers
from models.teacher import accuracy_on
from models.transfer import TransferSet

TEMPERATURE = 2.0
HARD_WEIGHT = 0.3


def from_teacher(teacher: TextNet, layers: int, rows: Sequence[Ids], targets: Floats) -> TextNet:
    """A student of a teacher's `layers` most important layers, see `important_layers`, by the loss on these rows."""
    return keep_layers(teacher, important_layers(teacher, rows, targets, layers))


def from_scratch(teacher: TextNet, layers: int, seed: int) -> TextNet:
    """A student of the teacher's shape with fewer layers and random weights."""
    torch.manual_seed(seed)
    config = copy.deepcopy(teacher.encoder.config)
    config.num_hidden_layers = layers
    encoder = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return TextNet(bare(encoder), teacher.head.out_features)


def from_pretrained(name: str, outputs: int) -> tuple[TextNet, Tokenizer]:
    """A student on a pretrained small encoder, from a folder or a hub id, with that encoder's tokenizer."""
    encoder, tokenizer = load_encoder(name)
    return TextNet(encoder, outputs), tokenizer


def distil(
    student: TextNet,
    preprocessor: Preprocessor,
    transfer: TransferSet,
    schedule: Schedule,
    *,
    validation: tuple[Sequence[Ids], Floats] | None = None,
    title: str = "student",
) -> TextNet:
    """Train a student in place on the teachers' labels; also the recovery training after pruning."""
    rows = preprocessor.tokens(transfer.texts)
    packed = np.concatenate([transfer.labels, transfer.logits, transfer.embeddings], axis=1)
    optimise(student, lambda epoch: (rows, packed), _loss, schedule, title, check=accuracy_on(validation))
    return student


def _loss(net: TextNet, ids: Tensor, mask: Tensor, packed: Tensor) -> Tensor:
    outputs = net.head.out_features
    labels, teacher, target = packed[:, :outputs], packed[:, outputs : 2 * outputs], packed[:, 2 * outputs :]
    embedding = net.embed(ids, mask).float()
    logits = net.head(net.dropout(embedding)).float()
    soft = functional.kl_div(
        functional.log_softmax(logits / TEMPERATURE, dim=1),
        functional.log_softmax(teacher / TEMPERATURE, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    value = soft * TEMPERATURE**2 + HARD_WEIGHT * functional.cross_entropy(logits, labels)
    if embedding.shape[1] == target.shape[1]:
        value = value + 1 - functional.cosine_similarity(embedding, target, dim=1).mean()
    return value
