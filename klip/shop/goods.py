"""What a shop sells, as tables: goods and their packages, fruit, flavours, names of lines
and of colours.
"""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, str]] = {
    # category: package shapes it is sold in, names people give it
    "juice": ("carton bottle carton can multipack pouch", "juice|fruit drink|nectar"),
    "milk": ("carton bottle carton", "milk|oat drink|soy drink"),
    "yoghurt": ("cup tub carton multipack", "yoghurt|sour milk|kefir"),
    "soda": ("can bottle can multipack", "soda|soft drink|lemonade"),
    "tea": ("box tin carton bag", "tea|ice tea|herbal tea"),
    "coffee": ("bag jar tin canister", "coffee|espresso|cocoa"),
    "crisps": ("bag bag canister", "crisps|potato chips|tortilla chips"),
    "snack mix": ("bag pouch canister", "snack mix|pretzels|nuts"),
    "cereal": ("box box bag", "cereal|muesli|oats"),
    "biscuits": ("box wrapper tin", "biscuits|cookies|crackers"),
    "chocolate": ("wrapper box bag", "chocolate|candy bar|pralines"),
    "sweets": ("bag box wrapper tin blister", "sweets|gummies|mints|chewing gum"),
    "noodles": ("cup box bag", "noodles|instant soup|pasta"),
    "rice": ("box bag", "rice|lentils|couscous"),
    "sauce": ("jar bottle pouch", "sauce|ketchup|dressing|mustard"),
    "jam": ("jar tub", "jam|honey|spread"),
    "tinned food": ("can tin can", "soup|beans|tuna|tinned fruit"),
    "spice": ("canister jar pouch", "salt|spice|seasoning"),
    "frozen": ("box bag tray", "frozen vegetables|pizza|ice cream"),
    "meat": ("tray pouch tray", "ham|sausages|cheese"),
    "medicine": ("bottle box blister tube", "cough syrup|tablets|vitamins"),
    "cosmetics": ("bottle tube jar canister", "shampoo|lotion|deodorant|cream"),
    "oral care": ("tube box blister bottle", "toothpaste|mouthwash|lip balm"),
    "cleaning": ("bottle box pouch canister", "detergent|cleaner|bleach"),
    "paper": ("box bag", "tissues|napkins|playing cards"),
    "hardware": ("blister tool tool blister", "comb|toothbrush|pen|razor|batteries"),
    "pet food": ("can pouch bag tin", "cat food|dog food"),
}

FRUIT: dict[str, tuple[float, float, float, float]] = {
    # fruit or vegetable: hue, saturation and brightness of its skin, hue of its second colour
    "apple": (0.98, 0.8, 0.75, 0.18), "plum": (0.86, 0.6, 0.35, 0.95),
    "potato": (0.11, 0.45, 0.75, 0.08), "beetroot": (0.97, 0.35, 0.35, 0.07),
    "orange": (0.08, 0.9, 0.95, 0.1), "melon": (0.22, 0.5, 0.7, 0.15),
    "pear": (0.17, 0.6, 0.75, 0.1), "onion": (0.08, 0.65, 0.7, 0.95),
    "berries": (0.98, 0.85, 0.7, 0.65), "mushroom": (0.09, 0.2, 0.85, 0.07),
    "pepper": (0.0, 0.95, 0.75, 0.3), "cucumber": (0.3, 0.65, 0.4, 0.25),
    "carrot": (0.07, 0.85, 0.92, 0.3), "banana": (0.145, 0.8, 0.92, 0.22),
    "pineapple": (0.12, 0.7, 0.7, 0.25), "lettuce": (0.25, 0.55, 0.75, 0.2),
    "ginger": (0.1, 0.35, 0.75, 0.07), "avocado": (0.28, 0.45, 0.3, 0.08),
    "cauliflower": (0.13, 0.12, 0.93, 0.25), "leek": (0.28, 0.5, 0.6, 0.15),
}  # fmt: skip

FLAVOURS = {
    # flavour: the hue it is usually printed in
    "mango": 0.11, "strawberry": 0.98, "lime": 0.24, "blueberry": 0.66, "vanilla": 0.13,
    "orange": 0.08, "cherry": 0.95, "mint": 0.42, "apple": 0.28, "lemon": 0.16,
    "peach": 0.06, "grape": 0.77, "coconut": 0.52, "caramel": 0.09, "paprika": 0.02,
    "onion": 0.31, "cheese": 0.14, "pepper": 0, "garlic": 0.18, "tomato": 0.01,
    "chicken": 0.12, "chili": 0.99, "hazelnut": 0.07, "raspberry": 0.93, "pear": 0.21,
    "banana": 0.15, "original": 0.6, "classic": 0, "light": 0.55, "zero": 0.7,
    "strong": 0.83, "sensitive": 0.5, "fresh": 0.45, "sport": 0.58, "night": 0.68,
    "kids": 0.88, "organic": 0.34, "spicy": 0.03, "mild": 0.36, "sea salt": 0.57,
}  # fmt: skip
LINES = """Gold Family Bio Select Farm Extra Daily Pure Royal Nature Crunch Dream Tradition
Active Premium Little Sun Harvest Mountain Ocean Power Soft Rapid Nordic Bella Grand Velvet
Magic Simple Garden""".split()
COLOURS = {
    "black": (0.06, 0.06, 0.07), "white": (0.95, 0.95, 0.95), "grey": (0.5, 0.5, 0.5),
    "red": (0.82, 0.08, 0.1), "dark red": (0.42, 0.05, 0.08),
    "orange": (0.96, 0.52, 0.08), "yellow": (0.97, 0.86, 0.15),
    "gold": (0.75, 0.6, 0.25), "brown": (0.42, 0.26, 0.13), "beige": (0.87, 0.78, 0.62),
    "green": (0.15, 0.6, 0.2), "dark green": (0.05, 0.28, 0.12),
    "light green": (0.6, 0.85, 0.4), "turquoise": (0.2, 0.75, 0.72),
    "blue": (0.12, 0.3, 0.8), "navy": (0.06, 0.1, 0.35),
    "light blue": (0.55, 0.78, 0.95), "purple": (0.45, 0.18, 0.6),
    "lilac": (0.75, 0.6, 0.88), "pink": (0.95, 0.5, 0.68), "magenta": (0.82, 0.1, 0.5),
}  # fmt: skip
