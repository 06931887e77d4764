"""What an archive has beside the radiographs that are wanted of it."""

import collections
import dataclasses


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """objects: kind, a modality or a class → how many. series: kind → series of which the archive does not say how many
    objects they have."""

    objects: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    series: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add_series(self, kind: str, n_objects: object) -> None:
        """A series that is not asked for its objects. n_objects: what the archive says of their number, if anything."""
        if isinstance(n_objects, int | str) and str(n_objects).isdecimal():
            self.objects[kind] += int(n_objects)
        else:
            self.series[kind] += 1

    @property
    def in_words(self) -> list[str]:
        """For each kind "455 CT", or "2 series of MR"."""
        words = [f"{count} {kind}" for kind, count in sorted(self.objects.items())]
        return words + [f"{count} series of {kind}" for kind, count in sorted(self.series.items())]
