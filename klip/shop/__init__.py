"""A rendered shop: products that do not exist, their packshots, and photographs of them on the shelf."""

from klip.shop.design import RANGES, Product, caption, design
from klip.shop.packshot import packshot
from klip.shop.photo import on_white, photograph
from klip.shop.sets import ShopPlan, catalogues, counts, render

__all__ = ["RANGES", "Product", "ShopPlan", "caption", "catalogues", "counts", "design", "on_white", "packshot",
           "photograph", "render"]
