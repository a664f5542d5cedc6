"""Groups of backbones that are asked for by one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["GROUPS", "ungrouped"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "study": ("mobilenetv3_small", "mobilenetv3_large", "resnet50", "inception_v3", "resnet101", "resnet152"),
    "modern": (  # weights under Apache-2.0, from 4 to 93 million parameters, five ways to train
        "timm/mobilenetv4_conv_small.e2400_r224_in1k",  # supervised, for telephones
        "timm/vit_small_patch14_reg4_dinov2.lvd142m@224",  # self-supervised; its own 518 pixels take 13 times as long
        "timm/resnet50.a1_in1k",  # supervised, the recipe of 2021
        "timm/convnext_tiny.fb_in22k",  # supervised, 22 thousand classes
        "timm/vit_base_patch16_clip_224.laion2b",  # images and texts, by contrast
        "timm/vit_base_patch16_siglip_224.v2_webli",  # images and texts, pair by pair, and their captions
    ),
}


def ungrouped(names: Iterable[str]) -> list[str]:
    """Return names of backbones, those of a group in its place, each once.

    >>> ungrouped(["resnet50", "study"])[:3]
    ['resnet50', 'mobilenetv3_small', 'mobilenetv3_large']
    """
    return list(dict.fromkeys(each for name in names for each in GROUPS.get(name, (name,))))
