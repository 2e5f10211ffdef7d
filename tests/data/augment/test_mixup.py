"""Mixup: every pixel is the mean of both images, and both keep their boxes."""

import torch

from fcos_cli.data.augment.mixup import mix


def test_two_images_are_averaged_and_all_boxes_stay() -> None:
    one = (
        torch.tensor([[[255, 254], [0, 9]]] * 3, dtype=torch.uint8),
        torch.tensor([[0.0, 0.0, 2.0, 1.0]]),
        torch.tensor([4]),
        torch.tensor([False]),
    )
    other = (
        torch.tensor([[[255, 0], [0, 4]]] * 3, dtype=torch.uint8),
        torch.tensor([[1.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]]),
        torch.tensor([0, 4]),
        torch.tensor([True, False]),
    )
    image, boxes, classes, ignore = mix(one, other)
    assert image.dtype == torch.uint8
    assert image.tolist() == [[[255, 127], [0, 6]]] * 3
    assert boxes.tolist() == [[0, 0, 2, 1], [1, 0, 2, 2], [0, 0, 1, 1]]
    assert classes.tolist() == [4, 0, 4]
    assert ignore.tolist() == [False, True, False]


def test_an_image_without_objects_can_be_mixed() -> None:
    empty = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()
    mixed = mix(empty, empty)
    assert [(part.shape, part.dtype) for part in mixed] == [(part.shape, part.dtype) for part in empty]
