"""What a profile's results cannot say, as sentences made from what is stored."""

from __future__ import annotations

from klip.companion import stored
from klip.companion.page_charts import evidence, table
from klip.data.catalogue import SHOPS
from klip.settings import config
from klip.stats.published import OURS, PAPER_SET

BOOKS = ("01", "02", "03", "04", "05", "06", "07", "08")


def limits(place: str) -> list[str]:
    """One sentence or two for each limit that there is."""
    found = stored.all_metrics(place)
    ran = {name.split("_")[0] for name in found}
    missing = [number for number in BOOKS if number not in ran]
    changes = stored.unlike_profile(place)
    lines = [changes] if changes else []
    if missing:
        lines.append(f"Not run yet: notebook {', '.join(missing)}. What they measure is missing.")
    lines += _about_sets(place)
    left_out = found.get("04_zero_shot", {}).get("left_out", "")
    if left_out:
        lines.append(f"Sets {left_out}.")
    for claim, reason in stored.reasons(place).items():
        lines.append(f"{claim} lacks evidence ({reason}).")
    lines += _about_rows(place)
    commits = {values.get("provenance", {}).get("commit") or "" for values in found.values()}
    if any(commit.endswith("-dirty") for commit in commits):
        lines.append("Some of it ran with changes that are in no commit (-dirty, below).")
    lines.append("Each interval is a 95 % interval by itself: of many, some miss by chance.")
    return lines


def _about_sets(place: str) -> list[str]:
    """Which sets are rendered, which may leak, which the encoder was chosen with."""
    names = list(dict.fromkeys(label.split()[0] for label in stored.sets(place)))
    rendered, lines = [name for name in names if name in PAPER_SET], []
    if rendered:
        like = ", ".join(f"{name} for {PAPER_SET[name]}" for name in rendered)
        lines.append(
            f"Rendered images, no photographs: {like}. The paper's figures were measured on "
            "other images; they are a scale, not a target."
        )
    learned = config.profile_values(stored.profile_of(place)).get("finetune_set", "shop")
    if learned in SHOPS and set(names) - set(rendered):
        lines.append("Fine-tuned on rendered images only, asked with photographs.")
    pairs = stored.all_metrics(place).get("01_long_tail", {}).get("suspected_pairs", {})
    for name, count in pairs.items():
        if count:
            what = "pair of products looks" if count == 1 else "pairs of products look"
            lines.append(f"{count} {what} the same in training and in {name} (01_leaks).")
    chosen = stored.all_metrics("nano").get("A_nano", {}).get("chosen", [])
    looked = dict.fromkeys(row["set"] for row in chosen)
    flattered = [place for place in looked if place.replace(",", "").split()[0] in names]
    if flattered:
        lines.append(
            "The shipped encoder was chosen with a look at "
            f"{' and at '.join(flattered)}: their figures flatter."
        )
    return lines


def _about_rows(place: str) -> list[str]:
    """Rivals that are none, towers that cannot judge, and how many seeds there were."""
    lines, rows = [], evidence(place)
    blind = dict.fromkeys(row["why"] for row in rows if row["status"] == "not tested")
    lines += [f"A tower may not judge: {why}." for why in blind]
    methods = table("05_rows", place)
    if methods.empty:
        return lines
    measured = methods[methods["top1"].notna()]
    for note, count in measured["note"].value_counts().items():
        lines.append(f"{count} of {len(measured)} rows of the comparison: {note}.")
    for row in methods[methods["top1"].isna()].itertuples():
        lines.append(f"Not measured: {row.row} on {row.set} ({row.note}).")
    seeds = methods.groupby(methods["row"] == OURS)["seeds"]
    if {True, False} <= set(seeds.groups):
        most, others = int(seeds.max()[True]), int((methods["seeds"] == 1).sum())
        one = f"{others} of {len(measured)} rows have one seed"
        lines.append(f"{OURS} is the mean of {most} seeds; {one}.")
    return lines
