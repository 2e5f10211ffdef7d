"""Candidate scores: the score of every class at every point, and the top k of each level.

Two methods give the same result. Exports rank every score, since their shapes must not depend on values. Eager PyTorch
first discards what cannot pass the threshold, which is nearly everything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcos_cli.model.config import ModelConfig

MAX_SPARSE_SHARE = 1 / 4
"""Maximum share of a level's scores, in blocks of eight, that may pass; above it, ranking everything is faster."""


MIN_SPARSE_SCORES = 1 << 15
"""Minimum number of scores in a level for the sparse method to pay off."""


def combine_scores(logits: Tensor, ctr: Tensor, *, rule: str) -> Tensor:
    """Final score of *every* class of a point: its probability times the point's centerness, or the square root of
    that.

    All classes are multiplied, not only the best one, so that two objects can share a point. Broadcasts; float32.
    """
    product = logits.float().sigmoid() * ctr.float().sigmoid()
    return product.sqrt() if rule == "sqrt" else product


def topk_candidates(cls: Tensor, ctr: Tensor, *, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The k = `config.candidates` best (point, class) pairs of one level that pass the threshold, best first.

    cls [B, C, h, w] and ctr [B, 1, h, w] are logits. Returns final scores, float32 [B, k], padded with 0, and places,
    int64 [B, k]: point · C + class, with points row by row. Ties go to the earlier place.
    """
    if not torch.compiler.is_compiling() and cls.numel() >= MIN_SPARSE_SCORES:
        picked = topk_sparse(cls, ctr, config=config)
        if picked is not None:
            return picked
    return topk_dense(cls, ctr, config=config)


def topk_dense(cls: Tensor, ctr: Tensor, *, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """`topk_candidates` by ranking every score. Shapes depend only on shapes, as an export requires."""
    rules, k, last = config.conventions, config.candidates, cls[0].numel() - 1
    final = _flatten_by_point(combine_scores(cls, ctr, rule=rules.score))
    ranked = final if rules.best_by == "score" else _flatten_by_point(cls.float().sigmoid())
    at_once = rules.threshold_on == rules.best_by  # otherwise the threshold must be applied before ranking
    floor = config.score_threshold if at_once else torch.finfo(torch.float32).tiny
    if not at_once:
        ranked = ranked * _passes(
            final if rules.threshold_on == "score" else _flatten_by_point(cls.float().sigmoid()), config
        )
    # pad with k zeros, so that k is valid for every input size (exports need a constant k)
    best, place = _topk_stable(F.pad(ranked, (0, k)), k, floor=floor)
    place = place.clamp(max=last)
    passed = _passes(best, config) if at_once else best > 0
    return (best if rules.best_by == "score" else final.gather(1, place)) * passed, place


def topk_sparse(cls: Tensor, ctr: Tensor, *, config: ModelConfig) -> tuple[Tensor, Tensor] | None:
    """`topk_candidates` by ranking only what can pass. Returns None if too much can pass for this to pay off."""
    rules, (batch, classes, height, width) = config.conventions, cls.shape
    found = _nonzero_sparse(cls >= _min_logit(ctr, config)) if config.score_threshold > 0 else None
    if found is None:
        return None
    channel, point = found // (height * width), found % (height * width)
    picture, class_index = channel // classes, channel % classes
    logits, centre = cls.flatten()[found], ctr.flatten()[picture * height * width + point]
    final, probability = combine_scores(logits, centre, rule=rules.score), logits.float().sigmoid()
    passed = _passes(final if rules.threshold_on == "score" else probability, config)
    place = point * classes + class_index
    ranked = final if rules.best_by == "score" else probability
    picture, place, final, ranked = (values[passed] for values in (picture, place, final, ranked))

    order = place.argsort()
    order = order[ranked[order].argsort(descending=True, stable=True)]
    order = order[picture[order].argsort(stable=True)]
    picture, place, final = picture[order], place[order], final[order]
    first = torch.searchsorted(picture, torch.arange(batch, device=cls.device))
    rank = torch.arange(len(picture), device=cls.device) - first[picture]
    kept = rank < config.candidates
    scores = final.new_zeros(batch, config.candidates)
    places = place.new_zeros(batch, config.candidates)
    scores[picture[kept], rank[kept]] = final[kept]
    places[picture[kept], rank[kept]] = place[kept]
    return scores, places


def _nonzero_sparse(mask: Tensor) -> Tensor | None:
    """Flat indices of the true values of a bool tensor, ascending. Returns None if they are not rare.

    Eight values are tested at a time as one int64, which is six times as fast as `nonzero` alone.
    """
    flat = mask.flatten()
    flat = F.pad(flat, (0, -len(flat) % 8))
    words = flat.view(torch.int64).nonzero()[:, 0]
    if len(words) * 8 > MAX_SPARSE_SHARE * len(flat) and len(flat) > 8 * 1024:
        return None
    row, column = flat.view(-1, 8)[words].nonzero(as_tuple=True)
    return words[row] * 8 + column


def _min_logit(ctr: Tensor, config: ModelConfig) -> Tensor:
    """Class logit [B, 1, h, w] below which a candidate certainly fails; slightly low, to allow for rounding."""
    rules = config.conventions
    if rules.threshold_on == "class":
        least = torch.full_like(ctr, config.score_threshold, dtype=torch.float32)
    else:
        least = config.score_threshold ** (2 if rules.score == "sqrt" else 1) / ctr.float().sigmoid()
    return (least * (1 - 1e-5)).clamp(max=1).logit()


def _flatten_by_point(scores: Tensor) -> Tensor:
    """[B, C, h, w] → [B, h·w·C], with the classes of a point next to each other."""
    return scores.permute(0, 2, 3, 1).flatten(1)


def _passes(values: Tensor, config: ModelConfig) -> Tensor:
    if config.conventions.threshold_ends == "closed":
        return values >= config.score_threshold
    return values > config.score_threshold


def _topk_stable(scores: Tensor, k: int, *, floor: float) -> tuple[Tensor, Tensor]:
    """The k highest values of each row [B, N] and their indices, best first. Ties go to the earlier index.

    ONNX's TopK is defined this way. PyTorch does not specify the order of ties, or which of them are cut off, so ties
    among scores of at least `floor` are resolved here.
    """
    best, place = scores.topk(k, dim=1)
    if torch.compiler.is_compiling():
        return best, place
    if bool((best[:, -1] >= floor).any()):  # rare: ties might be cut at the k-th place
        last = scores.shape[1] - 1
        # the bits of a float ≥ 0 sort like its value; the index, counted from the end, breaks ties
        backwards = torch.arange(last, -1, -1, device=scores.device)
        keys = (scores.view(torch.int32).long() << 32 | backwards).topk(k, dim=1).values
        place = last - (keys & 0xFFFFFFFF)
        return scores.gather(1, place), place
    place, _ = place.sort(dim=1)
    best, order = scores.gather(1, place).sort(dim=1, descending=True, stable=True)
    return best, place.gather(1, order)
