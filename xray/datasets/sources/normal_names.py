"""Labels that mean that nothing was found: "No finding", "Normal", …; they are no findings, and no categories."""

import dataclasses
from collections.abc import Iterable, Sequence

from xray.datasets import source as reasons
from xray.datasets.category_map import plain
from xray.datasets.normal_words import sounds_normal
from xray.datasets.sources.table_answers import is_question, is_unsaid, is_unsure
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning

CONTRADICTION = reasons.NORMAL_WITH_FINDINGS
NORMAL_BOXES = 'pictures with a box of a class that means "nothing found": without findings (--normal "": a category)'
DOUBTFUL_CATEGORIES = "categories whose names say nothing, which are categories like any unless --map drops them"
_FEWEST, _MANY = 3, 0.5
"""Pictures with a finding beside such a box, and their share, from which it is a region and no statement."""


@dataclasses.dataclass(frozen=True)
class NormalNames:
    """Which labels of a source mean that nothing was found.

    chosen: the user's, of --normal; none: all that are called so; only "": no label. kept: labels that are findings
    however they are called, as a category map has a line for them.
    """

    chosen: Sequence[str] = ()
    kept: Sequence[str] = ()

    def among(self, labels: Iterable[str], what: str) -> tuple[str, ...]:
        """Those of all labels, as they are spelt there. Several spellings may stand side by side.

        what: where the labels stand. Raises InputError for a chosen one that is not among them.
        """
        labels = tuple(dict.fromkeys(labels))
        if self.chosen:
            wanted = dict.fromkeys(text.casefold() for text in self.chosen if text)
            have = {label.casefold() for label in labels}
            missing = [text for text in self.chosen if text and text.casefold() not in have]
            if missing:
                raise InputError(
                    f"--normal {missing[0]}: {what} has no such label (its labels are {', '.join(labels[:30])})"
                )
            # People who label write Normal today and normal tomorrow.
            return tuple(label for text in wanted for label in labels if label.casefold() == text)
        return tuple(label for label in labels if self.is_normal(label))

    def is_normal(self, label: str) -> bool:
        """Whether a label means so that need not be among a source's others."""
        if self.chosen:
            return label.casefold() in {text.casefold() for text in self.chosen if text}
        return sounds_normal(label) and plain(label) not in set(map(plain, self.kept))

    def check_boxes(self, names: Iterable[str], n_marked: int, n_contradictory: int, what: str) -> None:
        """Raises InputError where boxes of such labels stand so often beside findings that they are regions.

        n_marked: pictures with such a box, n_contradictory: those that have a finding as well.
        """
        if not self.chosen and n_contradictory >= max(_FEWEST, _MANY * n_marked):
            name = ", ".join(names)
            raise InputError(
                f"{what}: of {n_marked} pictures with a box of {name}, {n_contradictory} have findings, too: give "
                f'--normal "" if these boxes are a category like any other, or --normal "{next(iter(names), "")}" to '
                "leave such pictures out"
            )


def said_of_doubt(categories: Iterable[str], kept: Sequence[str], what: str) -> list[FileWarning]:
    """What is said of categories of drawn objects that are called unknown, uncertain or ?.

    kept: categories that the user means as such. In tables such labels say nothing; here somebody has drawn something.
    """
    plain_kept = set(map(plain, kept))
    names = [name for name in categories if is_unsure(name) or is_unsaid(name) or is_question(name)]
    names = [name for name in names if plain(name) not in plain_kept]
    return [FileWarning(DOUBTFUL_CATEGORIES, what, ", ".join(names))] if names else []


def refuse_without_findings(categories: Iterable[object], names: Iterable[str], what: str) -> None:
    """Raises InputError where no category is left besides what means that nothing was found."""
    if not list(categories) and (names := list(names)):
        raise InputError(f'{what} has no category besides {", ".join(names)}: --normal "" makes that one')
