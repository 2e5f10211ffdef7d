"""Candidate selection: the sparse and the dense method agree for all conventions."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.topk import _nonzero_sparse, topk_candidates, topk_dense, topk_sparse
from tests.tiny import tiny_config

RULES = list(product(("sqrt", "product"), ("score", "class"), ("closed", "open"), ("score", "class")))


def config_of(rules: tuple[str, str, str, str], **changes: Any) -> Any:
    names = ("score", "threshold_on", "threshold_ends", "best_by")
    return tiny_config(conventions=Conventions(**dict(zip(names, rules, strict=True))), **changes)


def logits(*, seed: int, rare: float, steps: float) -> tuple[Tensor, Tensor]:
    """Return logits of a level for two images. steps: logits are rounded to multiples of it, so that scores tie."""
    generator = torch.Generator().manual_seed(seed)
    cls = torch.randn(2, 5, 30, 50, generator=generator) * 2 - rare
    ctr = torch.randn(2, 1, 30, 50, generator=generator) * 2
    return (cls / steps).round() * steps, (ctr / steps).round() * steps


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Compare with a tolerance of one bit, because torch's sigmoid rounds the end of a memory block differently."""
    if not torch.equal(one[1] * (one[0] > 0), other[1] * (other[0] > 0)):
        return False
    return torch.allclose(one[0], other[0], rtol=2e-7, atol=0)


@pytest.mark.parametrize("rules", RULES, ids="-".join)
@pytest.mark.parametrize("steps", [1e-6, 0.5])
def test_both_methods_agree(rules: tuple[str, str, str, str], steps: float) -> None:
    cls, ctr = logits(seed=1, rare=7, steps=steps)
    for k, threshold in ((20, 0.2), (400, 0.2)):
        config = config_of(rules, candidates=k, score_threshold=threshold)
        picked = topk_sparse(cls, ctr, config=config)
        assert picked is not None
        assert same(picked, topk_dense(cls, ctr, config=config))
        assert picked[0].shape == picked[1].shape == (2, k)


@pytest.mark.parametrize("rules", RULES, ids="-".join)
def test_nothing_passes(rules: tuple[str, str, str, str]) -> None:
    cls, ctr = torch.full((2, 3, 8, 8), -20.0), torch.zeros(2, 1, 8, 8)
    config = config_of(rules, candidates=10, score_threshold=0.3)
    scores, places = topk_candidates(cls, ctr, config=config)
    assert not scores.any()
    assert same((scores, places), topk_dense(cls, ctr, config=config))


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_many_passing_candidates(bias: float) -> None:
    cls, ctr = torch.full((2, 5, 64, 64), bias), torch.zeros(2, 1, 64, 64)
    config = config_of(RULES[0], candidates=10, score_threshold=0.3)
    assert topk_sparse(cls, ctr, config=config) is None
    _, places = topk_candidates(cls, ctr, config=config)
    assert places.tolist() == [list(range(10))] * 2


def test_threshold_zero_passes_everything() -> None:
    cls, ctr = logits(seed=2, rare=5, steps=1e-6)
    config = config_of(RULES[0], candidates=10, score_threshold=0.0)
    assert topk_sparse(cls, ctr, config=config) is None
    assert bool((topk_candidates(cls, ctr, config=config)[0] > 0).all())


def test_saturated_logits_pass() -> None:
    """Class probability 1 in float32, for which the smallest passing logit is infinite."""
    cls, ctr = torch.full((1, 1, 2, 3), -50.0), torch.full((1, 1, 2, 3), -50.0)
    cls[0, 0, 1, 2] = ctr[0, 0, 1, 2] = 60.0
    config = config_of(RULES[0], candidates=4, score_threshold=0.999)
    picked = topk_sparse(cls, ctr, config=config)
    assert picked is not None
    assert picked[0].tolist() == [[1, 0, 0, 0]]
    assert picked[1][0, 0] == 5


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 100), seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_true_indices_equal_nonzero(length: int, seed: int, share: float) -> None:
    mask = torch.rand(length, generator=torch.Generator().manual_seed(seed)) < share
    found = _nonzero_sparse(mask)
    assert found is not None
    assert torch.equal(found, mask.nonzero()[:, 0])
