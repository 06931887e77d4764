"""What a tree says of whole pictures: CVAT's tags, Label Studio's choices, and that nothing was found, in any form.

Detectors are also trained on a class "No finding" with a box, often of the whole picture. It is no finding: such a
picture has none.
"""

from collections.abc import Iterable

from xray.datasets.category_map import NORMAL_LABELS
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import (
    CONTRADICTION,
    NORMAL_BOXES,
    NormalNames,
    refuse_without_findings,
)
from xray.radiographs.file_warnings import FileWarning


class WholeLabels:
    """Enters labels of whole pictures, and judges those that mean that nothing was found.

    labels: all of the tree, of shapes and of whole pictures. normal: which of them mean so.
    Raises InputError where `normal` names a label that the tree does not have.
    """

    def __init__(self, collector: Collector, labels: Iterable[str], normal: NormalNames) -> None:
        self._collector, self._normal = collector, normal
        self._names = normal.among(labels, str(collector.root))
        self._said: set[str] = set()
        self._found: set[str] = set()
        self._marked: set[str] = set()
        self._contradictory: set[str] = set()
        if self._names:
            collector.notes[NORMAL_LABELS] = list(self._names)
            collector.read(repr(self._names).encode())

    def is_normal(self, label: str) -> bool:
        """Whether a label means that nothing was found; it is then no category."""
        return label in self._names

    def add(self, name: str, labels: Iterable[str], n_shapes: int, place: str, marked: Iterable[str] = ()) -> None:
        """Enters what one person says of a picture: shown, and somewhere in it unless a box says where.

        n_shapes: the shapes of findings. marked: labels of other shapes, which mean that nothing was found.
        A picture that is said to be normal and has another label or a shape is left out.
        """
        labels, marked = list(labels), list(marked)
        others = [label for label in labels if not self.is_normal(label)]
        if marked:
            self._marked.add(name)
        if others or n_shapes:
            self._found.add(name)
        if len(others) < len(labels) or marked:
            self._said.add(name)
            if others or n_shapes:
                self._contradictory.add(name)
                # The picture itself is what is wrong, so it is counted once.
                self._collector.set_aside(name, CONTRADICTION, f"{', '.join([*labels, *marked])} ({place})")
                return
        if marked:
            self._collector.warnings.append(FileWarning(NORMAL_BOXES, place, marked[0]))
        known = self._collector.categories
        numbers = [known[label] for label in others if label in known]
        # What is located after all is taken out of these when the dataset is written.
        self._collector.describe(name, labels=numbers, unlocated=numbers)

    def withhold(self, name: str, labels: Iterable[str]) -> None:
        """Enters labels of objects that a review has rejected, or not confirmed: what they name is unknown there, also
        beside other boxes of it. Of one that means that nothing was found all is."""
        labels = list(labels)
        known = self._collector.categories
        numbers = sorted({known[label] for label in labels if label in known})
        if any(map(self.is_normal, labels)):
            numbers = sorted(known.values())
        if numbers:
            self._collector.describe(name, unknown=numbers, elsewhere=numbers)
            self._said.discard(name)

    def finish(self) -> None:
        """To be called when all is entered. Raises InputError where boxes of such a label are regions after all, and
        where the tree has no other label."""
        for name in sorted(self._said - self._found):
            self._collector.describe(name, normal=True)
        n_contradictory = len(self._marked & self._contradictory)
        self._normal.check_boxes(self._names, len(self._marked), n_contradictory, str(self._collector.root))
        refuse_without_findings(self._collector.categories, self._names, str(self._collector.root))
