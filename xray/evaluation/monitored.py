"""Which validation metric decides what is best in a training; higher is better in all of them."""

from xray.evaluation.box_metrics import has_vinbig_categories

OF_TASK = {"classification": "mean_auroc", "segmentation": "dice"}


def monitored_by(task: str, monitor: str, categories: dict[int, str]) -> str:
    """The metric's name, a column of metrics.csv.

    task: "detection", "segmentation" or "classification". monitor: of detectors, --monitor. categories: id → name.
    Raises KeyError for another task.
    """
    if task != "detection":
        return OF_TASK[task]
    # Few large objects soon have a perfect map40, which then cannot tell epochs apart.
    auto = "map40" if has_vinbig_categories(categories) else "coco_ap"
    return auto if monitor == "auto" else monitor
