"""The page of an audit: what a dataset holds, and which of its radiographs and labels somebody should look at."""

import math
from collections.abc import Sequence, Sized
from pathlib import Path

import numpy as np

from xray.audit.audit import Audit
from xray.audit.counts import SMALL
from xray.audit.duplicates import Search
from xray.audit.named import (
    CATEGORY,
    DUPLICATE,
    EMPTY,
    INVERTED,
    LABEL,
    LATERAL,
    MISSING,
    PATIENT,
    REASONS,
    SIDE_SWAPPED,
    SPURIOUS,
    TURNED,
    UNLIKE,
    Named,
    where,
)
from xray.audit.readers import ANY, Agreement
from xray.datasets.annotation import READER_IOU
from xray.outputs.report.audit_figures import MOST_PLACES, gallery, places_figure, readers_figure
from xray.outputs.report.page import Page, write_page
from xray.outputs.report.parts import Bar, Section, Tile, figure, number, percent, shown, table

LOOKS = (INVERTED, TURNED, EMPTY, LATERAL, UNLIKE)
LABELS = (SIDE_SWAPPED, LABEL, CATEGORY, SPURIOUS, MISSING)
MOST_LISTED = 40
MOST_PAIRS = 20
MOST_ROWS = 100
"""Categories and readers that a table has; audit.json has all of them."""
MOST_VALUES = 12
"""Values of a header that are listed."""
NUMBERS = "audit.json"


def write_audit(path: Path, audit: Audit, predictions_name: str = "") -> Page:
    """Writes the page, as HTML and as Markdown, and its figures beside it; returns its content.

    predictions_name: where the predictions came from, as the reader of the page would name it.
    """
    store = audit.store
    subtitle = store.path.absolute().name
    if predictions_name:
        subtitle += f", labels against {predictions_name}"
    hint = "Dashed: what the dataset says. In full: what the predictions see."
    sections = [
        _reasons_section(audit),
        gallery(
            audit, _leaks_first(audit), "Copies and shared patients, pictured",
            "Each pair side by side; those in two splits or folds come first.", "copies.png",
        ),
        _named_section(audit, "Copies and shared patients", (DUPLICATE, PATIENT)),
        gallery(audit, audit.of(*LOOKS), "Odd radiographs, pictured", "As they stand in the dataset.", "odd.png"),
        _named_section(audit, "Odd radiographs", LOOKS),
        gallery(audit, audit.of(*LABELS), "Labels most likely wrong, pictured", hint, "labels.png"),
        _named_section(audit, "Labels most likely wrong", LABELS),
        _trust_section(audit),
        _groups_section(audit),
        _categories_section(audit),
        _places_section(audit),
        *_readers_sections(audit.agreement),
        _headers_section(audit),
        Section("How this is found", paragraphs=_method(audit)),
    ]  # fmt: skip
    page = Page(
        "Audit of a dataset",
        subtitle,
        audit.warnings,
        _tiles(audit),
        [section for section in sections if section is not None],
        NUMBERS,
    )
    return write_page(path, page)


def _leaks_first(audit: Audit) -> list[Named]:
    """Pairs, those in two splits or folds before those in one."""
    return sorted(audit.of(DUPLICATE, PATIENT), key=lambda one: not _is_apart(audit, one))


def _is_apart(audit: Audit, one: Named) -> bool:
    return where(audit.store, one.row) != where(audit.store, one.other)


def _tiles(audit: Audit) -> list[Tile]:
    n = len(audit.store)
    copies = len(audit.of(DUPLICATE))
    apart = sum(_is_apart(audit, one) for one in audit.of(DUPLICATE))
    tiles = [
        Tile("Named", f"{audit.n_named:,}", f"of {n:,} radiographs, {percent(audit.n_named / max(n, 1))}", True),
        Tile("Boxes", f"{len(audit.store.boxes):,}", f"{len(audit.store.categories)} categories"),
    ]
    if audit.search:
        found = audit.search.share_found
        note = f"{apart:,} in two splits or folds"
        tiles.append(Tile("Pairs of copies", f"{copies:,}", note))
        tiles.append(Tile("Test copies found", percent(found), "of copies made of this dataset to test the search"))
    if audit.agreement:
        share = audit.agreement.metrics["share_of_three_busiest"]
        note = f"the busiest three drew {percent(share)} of the boxes"
        tiles.append(Tile("Readers", f"{len(audit.agreement.names):,}", note))
        tiles.append(Tile("Agreement", number(audit.agreement.alpha[ANY]), "Krippendorff's alpha, any finding"))
    return tiles


def _reasons_section(audit: Audit) -> Section:
    rows = [
        (why, f"{len({row for one in audit.of(why) for row in one.rows}):,}", meaning)
        for why, meaning in REASONS.items()
        if audit.of(why)
    ]
    hint = "Radiographs by reason; named.csv beside this page lists all of them."
    head = ["!reason", "#radiographs", "meaning"]
    return Section("What is named", hint, table=table(head, rows), is_printed=bool(rows))


def _named_section(audit: Audit, title: str, reasons: Sequence[str]) -> Section | None:
    named = audit.of(*reasons)
    if not named:
        return None
    records = audit.store.records
    is_pair = any(one.other >= 0 for one in named)
    rows = [
        (
            one.why,
            str(records[one.row]["source_id"]),
            str(records[one.other]["source_id"]) if one.other >= 0 else "",
            where(audit.store, one.row),
            number(one.score),
            one.detail,
        )
        for one in named[:MOST_LISTED]
    ]
    head = ["!reason", "@radiograph", "@and" if is_pair else None, "!place", "#score", "detail"]
    hint = f"{shown(len(rows), len(named))}, the surest of each reason first; all are in named.csv."
    return Section(title, hint, table=table(head, rows))


def _trust_section(audit: Audit) -> Section | None:
    if audit.labels is None:
        return None
    rows = [
        (why, name, f"{contradicted:,}", f"{of:,}", "yes" if named else "no")
        for why, by_category in audit.labels.counts.items()
        for name, (contradicted, of, named) in sorted(by_category.items(), key=lambda item: -item[1][0])
        if contradicted
    ]
    hint = (
        f"On {audit.n_predicted:,} radiographs. Where predictions contradict many labels of a category, they do not "
        "know it, and none of these is named."
    )
    head = ["!reason", "!category", "#contradicted", "#of", "may be named"]
    return Section("What the predictions contradict", hint + _cut(rows), table=table(head, rows[:MOST_ROWS]))


def _groups_section(audit: Audit) -> Section:
    has_patients = any(group["patients"] for group in audit.counts.groups.values())
    rows = [
        (
            name,
            f"{group['images']:,}",
            f"{group['patients']:,}",
            f"{group['without_findings']:,}",
            percent(group["without_findings"] / group["images"]),
            f"{group['boxes']:,}",
        )
        for name, group in audit.counts.groups.items()
    ]
    patients = "#patients" if has_patients else None
    head = ["!place", "#radiographs", patients, "#without findings", "#share", "#boxes"]
    return Section("Splits and folds", table=table(head, rows))


def _categories_section(audit: Audit) -> Section:
    splits = [name for name in ("train", "val", "test") if (audit.store.splits == name).any()]
    numbers = audit.counts.categories
    most = max((one["images"] for one in numbers.values()), default=0)
    has_unknown = any(one["unknown"] for one in numbers.values())
    listed = list(numbers.items())
    if len(listed) > MOST_ROWS:
        listed = sorted(listed, key=lambda item: -item[1]["images"])[:MOST_ROWS]
    rows: list[tuple[str | Bar, ...]] = [
        (
            name,
            f"{one['images']:,}",
            Bar(one["images"] / most if most else math.nan),
            *(f"{one[f'images_{split}']:,}" for split in splits),
            f"{one['unknown']:,}",
            f"{one['without_box']:,}",
            f"{one['boxes']:,}",
            f"{100 * one['area'][1]:.2f} %" if "area" in one else number(math.nan),
            f"{100 * one['area'][0]:.2f}–{100 * one['area'][2]:.2f} %" if "area" in one else number(math.nan),
            "{:.2f}, {:.2f}".format(*one["middle"]) if "middle" in one else number(math.nan),
            f"{one.get('under_8_pixels', 0):,}",
        )
        for name, one in listed
    ]
    head = [
        "!category", "#radiographs", "|", *(f"#{split}" for split in splits), "#unknown" if has_unknown else None,
        "#without box", "#boxes", "#median area", "#5th–95th", "#middle x, y", f"#under {SMALL} px",
    ]  # fmt: skip
    hint = (
        f"Areas and middles as shares of the radiograph; boxes whose shorter side is under {SMALL} pixels of the "
        f"canvas of {audit.store.canvas_size} are hard to learn."
    )
    return Section("Categories", hint + _cut(numbers), table=table(head, rows), is_printed=True)


def _places_section(audit: Audit) -> Section | None:
    n = len(audit.counts.places)
    hint = f"The {MOST_PLACES} categories with most boxes of {n:,}." if n > MOST_PLACES else ""
    return figure("places.png", places_figure(audit), hint_end=hint) if n else None


def _readers_sections(agreement: Agreement | None) -> list[Section]:
    if agreement is None:
        return []
    total = max(int(agreement.n_boxes.sum()), 1)
    readers = [
        (
            name, f"{images:,}", f"{boxes:,}", percent(boxes / total), Bar(boxes / total),
            percent(positive / images) if images else number(math.nan),
        )
        for name, images, boxes, positive in zip(
            agreement.names, agreement.n_images.tolist(), agreement.n_boxes.tolist(), agreement.n_positive.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    sections = [
        Section(
            "Readers",
            "Radiographs read, boxes drawn, and the share of the radiographs in which a reader saw any finding."
            + _cut(readers),
            table=table(["!reader", "#radiographs", "#boxes", "#share", "|", "#with finding"], readers[:MOST_ROWS]),
        )
    ]
    findings = [
        (
            name,
            number(alpha),
            number(agreement.fleiss.get(name, math.nan)),
            number(float(np.nanmean(values))) if np.isfinite(values).any() else number(math.nan),
        )
        for name, alpha in agreement.alpha.items()
        for values in [np.array([pair.kappa[name] for pair in agreement.pairs], dtype=np.float64)]
    ]
    hint = (
        "By radiograph, whether a reader drew any box of the category. Fleiss' kappa where all have as many readers; "
        "Cohen's is the mean over pairs."
    )
    head = ["!category", "#Krippendorff's alpha", "#Fleiss' kappa", "#Cohen's kappa"]
    # The last is of any finding.
    listed = [*findings[:MOST_ROWS], *findings[MOST_ROWS:][-1:]]
    sections.append(Section("Readers' agreement", hint + _cut(findings[:-1]), table=table(head, listed)))
    if not agreement.pairs:
        return sections
    pairs = [
        (
            f"{agreement.names[pair.first]}, {agreement.names[pair.second]}",
            f"{pair.n_images:,}",
            number(pair.kappa[ANY]),
            number(pair.mean_kappa),
            f"{pair.n_boxes[0]:,}, {pair.n_boxes[1]:,}",
            f"{pair.n_matched:,}",
            number(pair.iou),
        )
        for pair in sorted(agreement.pairs, key=lambda pair: -pair.n_images)[:MOST_PAIRS]
    ]
    boxes = (
        "The boxes of this dataset are fused, so that the overlap of single readers' boxes is not known: convert with "
        "--readers all to see it."
        if agreement.is_fused
        else f"Boxes match at an IoU of {READER_IOU} within a category."
    )
    own = [None, None] if agreement.is_fused else ["#matched", "#mean IoU"]
    head = ["!readers", "#radiographs", "#kappa, any finding", "#mean kappa of categories", "#boxes of each", *own]
    hint = f"{shown(len(pairs), len(agreement.pairs))}, most radiographs first. {boxes}"
    sections.append(Section("Pairs of readers", hint, table=table(head, pairs)))
    sections.append(figure("readers.png", readers_figure(agreement)))
    return sections


def _headers_section(audit: Audit) -> Section:
    counts = audit.counts
    facts = {name.capitalize(): _most(values) for name, values in counts.headers.items()}
    sizes = ", ".join(f"{n:,} of {size}" for size, n in counts.sizes.items())
    facts["Sizes"] = f"{sizes} ({counts.n_sizes:,} different)"
    dropped = audit.store.conversion.get("dropped", {}).get("counts", {})
    facts["Left out on conversion"] = ", ".join(f"{n:,} × {reason}" for reason, n in dropped.items()) or "nothing"
    return Section("Headers and sizes", facts=facts)


def _most(values: dict[str, int]) -> str:
    """The most frequent values of a header, with their radiographs, and how many others there are."""
    listed = list(values.items())
    others = listed[MOST_VALUES:]
    text = ", ".join(f"{n:,} {value}" for value, n in listed[:MOST_VALUES])
    return f"{text}, {sum(n for _, n in others):,} of {len(others):,} other values" if others else text


def _cut(rows: Sized) -> str:
    """What a table that lists MOST_ROWS of these rows says of the others."""
    return "" if len(rows) <= MOST_ROWS else f" {shown(MOST_ROWS, len(rows))}; all are in {NUMBERS}."


def _method(audit: Audit) -> list[str]:
    paragraphs = [
        "Inverted and turned radiographs fit the median radiograph of the dataset better inverted or turned. What is "
        "unlike the others lies far beyond those of its fold, in robust standard deviations, in what the principal "
        "components of others do not explain: a lateral radiograph, another part of the body, a photograph."
    ]
    if audit.search:
        paragraphs.append(_about_copies(audit.search))
    if audit.labels:
        paragraphs.append(
            "Labels are held against predictions after confident learning (Northcutt et al. 2021), with a threshold of "
            "each category's own. It holds only for predictions of radiographs that the model was not trained on; what "
            "is not known of a radiograph does not count. Named does not mean wrong: somebody has to look."
        )
    return paragraphs


def _about_copies(search: Search) -> str:
    made = ", ".join(f"{name} {found} of {n}" for name, (n, found) in search.disguised.items())
    return (
        f"Copies: {search.n_compared:,} pairs of the most alike were laid upon each other; they are copies from an "
        f"agreement of {search.threshold:.3f} in detail on, which is fitted on this dataset, between radiographs of "
        f"different patients and disguised copies of its own; from a higher one where the radiographs next to them "
        f"agree more than most do. Expected over it by chance: {search.expected_false:.2g} pairs. Disguised copies "
        f"found: {made}."
    )
