"""A joint network over words and context, trained only to be compared with the additive context part.

What it would cost: the answer could no longer say what the words said and what the context added, a screen of a
product could lower that product, and nothing would bound what a misleading context can do.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.preprocess import Preprocessor
from models.classifier import TextClassifier
from models.context_sampling import ContextPool, context_inputs, with_contexts
from models.data import OUT_OF_SCOPE, Example, Split
from models.fit import text_logits
from models.fuse import context_features
from models.targets import one_hot

HIDDEN = 128
STEPS = 600
BATCH = 512


def joint_accuracy(
    parts: Split,
    sets: Mapping[str, Sequence[Example]],
    names: Sequence[str],
    preprocessor: Preprocessor,
    classifier: TextClassifier,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on each set with in-scope rows of a two-layer network trained on text logits, screens by age, and usage.

    It is trained on the same rows as the additive part, contexts drawn alike, with dropout and weight decay. Without a
    test split, where the sets are the validation rows, it is trained on the training rows only.
    """
    learnt = [*parts.train, *parts.validation] if parts.test else parts.train
    rows = with_contexts(learnt, ContextPool(parts.train), 2, seed)
    screens = sorted({screen for context in context_inputs(preprocessor, rows) for screen in context.recent_screens})
    inputs = _inputs(names, screens, preprocessor, classifier)
    targets = torch.from_numpy(one_hot(rows, names, classifier.outputs))
    net = _fitted(inputs(rows), targets, seed)
    result = {}
    for name, members in sets.items():
        inside = [row for row in members if row.product != OUT_OF_SCOPE]
        if not inside:
            continue
        with torch.inference_mode():
            answers = net(inputs(inside))[:, : len(names)].argmax(dim=1)
        truth = torch.tensor([names.index(row.product) for row in inside])
        result[name] = round(float((answers == truth).float().mean()), 4)
    return result


def _inputs(
    names: Sequence[str], screens: Sequence[str], pre: Preprocessor, classifier: TextClassifier
) -> Callable[[Sequence[Example]], Tensor]:
    depth = pre.config.max_screens

    def inputs(rows: Sequence[Example]) -> Tensor:
        text = torch.from_numpy(text_logits(rows, pre, classifier))
        contexts = context_inputs(pre, rows)
        seen, log_uses, share = context_features(contexts, screens, names, classifier.outputs, depth)
        return torch.cat([text, seen.flatten(1), log_uses, share], dim=1)

    return inputs


def _fitted(inputs: Tensor, targets: Tensor, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(inputs.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.3), nn.Linear(HIDDEN, targets.shape[1])
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(STEPS):
        chosen = torch.randint(len(inputs), (BATCH,))
        value = functional.cross_entropy(net(inputs[chosen]), targets[chosen])
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net.eval()
