"""Labels of whole pictures in trees of boxes: CVAT's tags, Label Studio's choices."""

from collections.abc import Collection, Iterable

from xray.datasets.sources.collector import Collector

CONTRADICTION = "picture said to be normal, with findings"
NORMAL = ("normal", "nofinding", "nofindings", "healthy", "negative")
"""Labels, without case and punctuation, which say that a radiograph shows nothing; they are no category."""


class WholeLabels:
    """Enters labels of whole pictures. with_boxes: names of categories that shapes have."""

    def __init__(self, collector: Collector, with_boxes: Collection[str]) -> None:
        self._collector, self._with_boxes = collector, with_boxes

    def is_normal(self, label: str) -> bool:
        """Whether a label says that there is nothing; never one that shapes have."""
        plain = "".join(mark for mark in label.casefold() if mark.isalnum())
        return plain in NORMAL and label not in self._with_boxes

    def add(self, name: str, labels: Iterable[str], n_shapes: int, place: str) -> None:
        """Enters a picture's labels: shown, and somewhere in it unless a box says where.

        One that is said to be normal and has another label or a shape is left out.
        """
        labels = list(labels)
        others = [label for label in labels if not self.is_normal(label)]
        if len(others) < len(labels) and (others or n_shapes):
            self._collector.lose(name, place, CONTRADICTION, ", ".join(labels))
            return
        known = self._collector.categories
        numbers = [known[label] for label in others if label in known]
        # What is located after all is taken out of these when the dataset is written.
        self._collector.describe(name, labels=numbers, unlocated=numbers)
