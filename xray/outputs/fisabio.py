"""The submission of SIIM-FISABIO-RSNA COVID-19 Detection, from the journal of an inference."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from xray.datasets.inputs import Inputs
from xray.errors import InputError, spelled
from xray.inference.prediction_journal import PredictionJournal
from xray.structures.fisabio import APPEARANCES, OPACITY, Found, write_fisabio_submission
from xray.structures.submission import submission_order

OPACITIES = (OPACITY, "lung opacity")
"""Names of categories whose boxes are opacities, in lower case."""


class FisabioSubmission:
    """What the submission needs to know before anything is found.

    Raises InputError where no category is one of opacities, and for a radiograph of which it cannot tell the study.
    """

    def __init__(self, data: Path, inputs: Inputs, categories: Mapping[int, str], sample: str) -> None:
        self.inputs = inputs
        self.opacities = [number for number, name in categories.items() if name.casefold() in OPACITIES]
        if not self.opacities:
            raise InputError(
                f"--submission fisabio needs boxes of opacity, and --weights find {', '.join(categories.values())}: "
                f"train a detector on what {spelled('convert')} fisabio or rsna made"
            )
        self.studies = [self._study(number) for number in range(len(inputs))]
        places = (
            [Path(sample)]
            if sample
            else [data / "sample_submission.csv", data.absolute().parent / "sample_submission.csv"]
        )
        here = next((path for path in places if path.is_file()), Path(sample) if sample else None)
        self.order = submission_order(here) if here is not None else []

    def _study(self, number: int) -> str:
        if self.inputs.store is not None and self.inputs.rows is not None:
            study = self.inputs.store.records[int(self.inputs.rows[number])].get("patient")
        else:
            # test/<study>/<series>/<radiograph>.dcm
            folders = self.inputs.file_name(number).split("/")[:-1]
            study = folders[-2] if len(folders) > 1 else None
        if not study:
            raise InputError(
                f"--submission fisabio: the study of {self.inputs.file_name(number)} is not known: give the folder "
                "that holds <study>/<series>/<radiograph>.dcm, or the dataset directory that convert fisabio made"
            )
        return str(study)

    def write(self, path: Path, journal: PredictionJournal) -> None:
        """Writes the submission, and says on stderr of how many ids of the sample submission nothing is known."""
        unseen = write_fisabio_submission(path, list(self._found(journal)), self.order)
        if unseen:
            print(
                f"{len(unseen)} of {len(self.order)} ids of the sample submission (the first is {unseen[0]}) are of no "
                "radiograph there: they are submitted as negative and none",
                file=sys.stderr,
            )

    def _found(self, journal: PredictionJournal) -> Iterator[Found]:
        for number, name in enumerate(self.inputs.ids):
            predictions, labels_of = journal.predictions([number])
            table, labels = (
                predictions.table,
                {key.casefold(): value for key, value in labels_of.get(number, {}).items()},
            )
            rows = [row for row, label in enumerate(table.labels.tolist()) if label in self.opacities]
            appearances = [labels.get(each.casefold()) for each in APPEARANCES]
            yield Found(
                image=name.rpartition("/")[2],
                study=self.studies[number],
                scores=table.scores[rows],
                boxes=table.boxes[rows],
                opacity=next((labels[each] for each in OPACITIES if each in labels), None),
                appearances=None if None in appearances else [float(value or 0) for value in appearances],
            )
