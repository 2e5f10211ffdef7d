"""Boxes that are small in the network's input, and what is proposed for them."""

from dataclasses import replace

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiny_boxes import box_sizes, enlarge, find_tiny
from tests.train.recipe.made import dataset, sample


def squares(side: int, *, image: tuple[int, int] = (640, 640), share: float = 0.5) -> Dataset:
    """Twenty images, in each of which this share of 20 squares has `side` px and the others 200 px."""
    count = round(20 * share)
    return dataset([sample(*image, sides=[side] * count + [200] * (20 - count))] * 20)


def found(data: Dataset, size: tuple[int, int] | None = (320, 320), *, stride: int = 8) -> list[Finding]:
    resize = None if size is None else ResizeRule("letterbox", size)
    return list(find_tiny(data, resize=resize, stride=stride))


def tiny(data: Dataset, size: tuple[int, int] | None = (320, 320), *, stride: int = 8) -> Finding:
    (finding,) = found(data, size, stride=stride)
    return finding


def test_boxes_are_measured_at_the_input_size() -> None:
    data = squares(20, image=(400, 400), share=0.25)  # 400 px to 100 px makes 20 px into 5
    assert not found(data, None)
    message = tiny(data, (100, 100)).message
    assert message.startswith("25% of 400 boxes")
    assert "100 x 100" in message


def test_the_cheapest_remedy_for_tiny_boxes_is_named() -> None:
    # 15 of 640 px are 7.5 of 320: three quarters more are enough
    finding = tiny(squares(15))
    assert finding.message == (
        "50% of 400 boxes are less than 8 px wide or high at input size 320 x 320 (letterbox): "
        "--size 480 leaves 0%, model.strides 4…64 0%, --tile 480 0%"
    )
    assert finding.remedy == "use --size 480"
    # 10 px are 5: too few at 480 (7.5), enough for a stride of 4, at 640 and in tiles of 320
    finding = tiny(squares(10))
    assert finding.message.endswith("--size 640 leaves 0%, model.strides 4…64 0%, --tile 320 0%")
    assert finding.remedy == 'use --set "model.strides=[4,8,16,32,64]"'


def test_only_tiles_help_in_very_large_images() -> None:
    finding = tiny(squares(20, image=(4000, 3000)))  # 1.6 px of 320
    assert finding.message.endswith("--size 1280 leaves 50%, model.strides 4…64 50%, --tile 640 0%")
    assert finding.remedy == "use --tile 640"


def test_without_a_sufficient_remedy_the_best_of_each_kind_is_shown() -> None:
    # 20 % have 1 px of 640 and 40 % have 12: only the latter can be made large enough
    one, twelve = squares(1, share=0.4), squares(12, share=0.8)
    finding = tiny(replace(one, samples=[*one.samples, *twelve.samples]))
    assert "60% of 800 boxes" in finding.message
    assert finding.message.endswith("--size 1280 leaves 20%, model.strides 4…64 20%, --tile 160 --size 320 20%")
    assert finding.remedy == "combine two of these"


def test_tiles_are_not_proposed_for_images_smaller_than_all_of_them() -> None:
    small = squares(3, image=(160, 160))  # 6 px of 320, where the smallest tiles are 160
    assert tiny(small).message.endswith("--size 480 leaves 0%, model.strides 4…64 0%")
    wide = replace(small, samples=[replace(s, width=161) for s in small.samples])  # where they do not help
    assert tiny(wide).message.endswith("--tile 160 --size 320 50%")


def test_a_finer_level_is_not_proposed_to_a_network_that_has_it() -> None:
    finding = tiny(squares(5), stride=4)
    assert "less than 4 px" in finding.message
    assert "model.strides" not in finding.message
    assert not found(squares(9), stride=4)


def test_a_larger_input_is_an_option_of_the_command_line() -> None:
    finding = tiny(squares(15, image=(640, 480)), (240, 320))
    assert "--size 352x480 leaves 0%" in finding.message


def test_without_an_input_size_remedies_are_general() -> None:
    assert not found(squares(15), None)
    assert tiny(squares(7), None).remedy == "train with a larger --size, or on tiles (--tile)"


def test_tiles_smaller_than_the_input_are_proposed_with_its_size() -> None:
    """Without `--size`, the input would be chosen anew, no larger than the tiles, and boxes would stay as they are."""
    finding = tiny(squares(5, image=(2000, 2000)))  # 10 px of tiles of 160
    assert finding.message.endswith("--tile 160 --size 320 0%")
    assert finding.remedy == "use --tile 160 --size 320"
    assert tiny(squares(5, image=(2000, 1500)), (240, 320)).remedy == "use --tile 128 --size 240x320"


def test_boxes_below_a_pixel_are_invisible_unless_they_are_long() -> None:
    resize = ResizeRule("letterbox", (320, 320))
    assert box_sizes(squares(12, image=(4000, 4000))).invisible(resize) == 0.5
    assert box_sizes(squares(13, image=(4000, 4000))).invisible(resize) == 0
    line = replace(sample(4000, 4000, sides=[1]), boxes=np.array([[0, 0, 100, 1]], np.float32))
    assert box_sizes(dataset([line])).invisible(resize) == 0


def test_advice_for_invisible_boxes_names_what_is_enough_or_doubts_their_units() -> None:
    resize = ResizeRule("letterbox", (320, 320))
    assert enlarge(box_sizes(squares(12, image=(4000, 4000))), resize, stride=8) == "use --tile 480"
    one = box_sizes(squares(1))
    assert enlarge(one, resize, stride=8) == "check that the boxes are in pixels, or use --tile 160 --size 320"
