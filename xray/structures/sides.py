"""Left and right in the names of categories: what a category is called on a mirrored radiograph.

"Left lung" becomes "Right lung" there, and so do left_lung, LungLeft, "Lung (left)", "L lung", "Linke Lunge" or RUL. A
name is taken apart into words, and two categories swap where their words are the same except for the side, one to one.
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from xray.errors import InputError

AUTO, NONE = "auto", "none"
"""In place of pairs: what the names tell, and no pair at all."""

MOST_NAMED = 6
"""Categories or pairs in one line."""

LEFT, RIGHT = "<", ">"
"""What stands for a word of a side; no word holds it."""
OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT}

_WORDS = """
left right / links rechts / linke rechte / linker rechter / linkes rechtes / linken rechten / linkem rechtem
linkse rechtse / linksseitig rechtsseitig / linksseitige rechtsseitige / linksseitiger rechtsseitiger
linksseitiges rechtsseitiges / gauche droit / gauche droite / gauches droits / gauches droites
izquierdo derecho / izquierda derecha / izquierdos derechos / izquierdas derechas / esquerre dret / esquerra dreta
esquerdo direito / esquerda direita / esquerdos direitos / esquerdas direitas / sinistro destro / sinistra destra
sinistri destri / sinistre destre / sinistra dextra / sinistrum dextrum / sinistri dextri
vänster höger / vänstra högra / venstre højre / venstre høyre / vasen oikea / vasemman oikean / vasemmalla oikealla
lewy prawy / lewa prawa / lewe prawe / lewego prawego / lewej prawej / lewym prawym / levý pravý / levá pravá
levé pravé / levého pravého / vlevo vpravo / ľavý pravý / ľavá pravá / ľavé pravé / vľavo vpravo / lijevi desni
lijevo desno / lijeva desna / levi desni / levo desno / leva desna / stâng drept / stânga dreapta
stângul dreptul / stângă dreaptă / bal jobb / sol sağ / levý pravy / левый правый / левая правая / левое правое
левого правого / левой правой / левом правом / слева справа / лівий правий / ліва права / ліве праве / лівого правого
лівої правої / зліва справа / ліворуч праворуч / ляв десен / лява дясна / ляво дясно / левостороннее правостороннее
левосторонний правосторонний / левосторонняя правосторонняя / αριστερός δεξιός / αριστερή δεξιά / αριστερό δεξιό
αριστερά δεξιά / αριστερού δεξιού / trái phải / kiri kanan / 왼쪽 오른쪽 / 좌측 우측 / أيسر أيمن / الأيسر الأيمن
يسرى يمنى / اليسرى اليمنى / يسار يمين / چپ راست / שמאל ימין / שמאלי ימני / שמאלית ימנית / बायाँ दायाँ / बायां दायां
बाएं दाएं / बायीं दायीं
"""
_SHORT_WORDS = "l r / lt rt / lft rgt / li re / izq der / izda dcha / izdo dcho / esq dir / sin dex / sin dext / sx dx"
_SHORT_WORDS += " / gche dte / sinister dexter / bal jobb / sol sağ / лев прав / 좌 우"
"""Which may be other words, or parts of a code: only names of which one has the one and the other the other swap."""
_SIGNS = {"左": LEFT, "右": RIGHT, "ซ้าย": LEFT, "ขวา": RIGHT}
"""Parts of words in scripts without blanks."""
_INITIALS = {"l": LEFT, "r": RIGHT}
_ROMANCE = "poumon poumons pulmon pulmones polmone polmoni pulmao pulmoes pulmo hile plevre clavicule hemithorax"
_LETTERS = {"g": LEFT, "i": LEFT, "e": LEFT, "s": LEFT, "d": RIGHT}
"""Beside one of these organs: gauche, izquierdo, esquerdo, sinistro, and droit, derecho, direito, destro."""
_ORGANS = (
    "lung lungs lobe clavicle hilum hilus heart rib ribs breast scapula diaphragm hemidiaphragm hemithorax apex base"
)
_ORGANS += (
    " costophrenic kidney pleura lunge lungen long poumon pulmon polmone pulmao upper lower middle mid side sided"
)
"""Words that may be joined with a side: leftlung, rlung, linkerlong."""
_AREAS = "ul ml ll uz mz lz cpa"
"""Upper, middle and lower lobe or zone, and the costophrenic angle: with a side before it LUL, RLL, LCPA."""


@dataclasses.dataclass(frozen=True)
class Swap:
    """What becomes of categories on a mirrored radiograph.

    of: category id → category id; its own inverse. alone: names that tell a side whose opposite is no category: what
    becomes of these has no name.
    """

    of: dict[int, int]
    alone: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Category ids that swap, the lower one first."""
        return [(one, other) for one, other in self.of.items() if one < other]


def mirrored(categories: Mapping[int, str]) -> dict[int, int]:
    """What each category becomes when the radiograph is flipped: "Left lung" ↔ "Right lung", all others themselves.

    categories: {category id: name}. A side without its opposite among the names stays itself.
    """
    return by_name(categories).of


def by_name(categories: Mapping[int, str]) -> Swap:
    """What the names of categories tell. Where a name has two opposites, by its words, neither swaps with it."""
    swap = {category: category for category in categories}
    readings = {category: reading for category, name in categories.items() if (reading := _read(name)).is_sided}
    single = dict(readings)
    used: set[str] = set()
    for key in _KEYS:
        keys = {category: key(reading) for category, reading in single.items()}
        holders, owner = Counter(keys.values()), {words: category for category, words in keys.items()}
        for category, reading in list(single.items()):
            other = owner.get(key(reading.flipped), category)
            if other != category and holders[keys[category]] == holders[keys[other]] == 1:
                swap[category] = other
                used |= reading.short
                del single[category]
    alone = [
        categories[category]
        for category, reading in single.items()
        if not reading.is_both and (not reading.short or reading.short & used)
    ]
    return Swap(swap, tuple(alone))


def chosen(categories: Mapping[int, str], flags: Sequence[str] = (AUTO,)) -> Swap:
    """The swaps that the names tell, and those that `flags` give: "A=B" swaps two, "A=A" leaves one as it is.

    flags: the values of `--swap`; with "none" among them, the names tell nothing. Raises InputError for names that no
    category has, and for a category in two pairs.
    """
    pairs = dict.fromkeys(tuple(_pair(categories, one)) for one in flags if one not in (AUTO, NONE))
    decided: dict[int, int] = {}
    for one, other in pairs:
        for category, partner in {one: other, other: one}.items():
            if decided.setdefault(category, partner) != partner:
                raise InputError(f"--swap has {categories[category]!r} in two pairs: a category swaps with one other")
    unchanged = {category: category for category in categories}
    if NONE in flags:
        return Swap(unchanged | decided)
    rest = by_name({category: name for category, name in categories.items() if category not in decided})
    return Swap(unchanged | rest.of | decided, rest.alone)


def told(swap: Swap, categories: Mapping[int, str], is_mirrored: bool, names_sides: bool = True) -> str:
    """One line on what mirroring does to the categories, for the user of `train`.

    is_mirrored: whether any radiograph is. names_sides: whether the categories are what is learned.
    """
    if swap.alone and not is_mirrored and names_sides:
        names = ", ".join(repr(name) for name in swap.alone[:MOST_NAMED])
        more = f" and {len(swap.alone) - MOST_NAMED} more name" if len(swap.alone) > MOST_NAMED else " names"
        return (
            f"no radiograph is mirrored: {names}{more} a side, and its opposite is no category "
            '(--swap "A=B" names it, --swap "A=A" or --no-swap mirrors all the same)'
        )
    if not is_mirrored:
        return "no radiograph is mirrored"
    if not names_sides:
        return "radiographs are mirrored"
    pairs = [f"{categories[one]} ↔ {categories[other]}" for one, other in swap.pairs]
    if not pairs:
        return "radiographs are mirrored at random; no category changes its name by that"
    more = f" and {len(pairs) - MOST_NAMED} more pairs" if len(pairs) > MOST_NAMED else ""
    return f"mirrored radiographs swap {', '.join(pairs[:MOST_NAMED])}{more}"


def from_pairs(categories: Mapping[int, str], pairs: Sequence[Sequence[int]]) -> dict[int, int]:
    """`Swap.pairs`, as a run stores them → `Swap.of`. Raises ValueError for pairs that cannot swap."""
    result = {category: category for category in categories}
    for one, other in pairs:
        if one == other or any(result.get(category) != category for category in (one, other)):
            raise ValueError(f"categories {one} and {other} cannot swap")
        result[one], result[other] = other, one
    return result


def _pair(categories: Mapping[int, str], text: str) -> tuple[int, int]:
    """ "A=B" → the ids of both, the lower one first."""
    number = {name.strip().casefold(): category for category, name in categories.items()}
    number |= {name.strip(): category for category, name in categories.items()}
    parts = text.split("=")
    # Names may hold the sign, too.
    splits = [("=".join(parts[:at]).strip(), "=".join(parts[at:]).strip()) for at in range(1, len(parts))]
    ids = [[number.get(name, number.get(name.casefold())) for name in split] for split in splits]
    for one, other in ids:
        if one is not None and other is not None:
            return min(one, other), max(one, other)
    known = ", ".join(categories.values())
    missing = next((name for name, one in zip(splits[0], ids[0], strict=True) if one is None), text) if splits else text
    raise InputError(f'--swap "{text}": {missing!r} is no category of this dataset; it has {known[:300]}')


@dataclasses.dataclass(frozen=True)
class _Reading:
    """A name as words, of which those of a side are LEFT or RIGHT.

    spelt: the same with the marks between them. short: the pairs of short words among them, see _SHORT.
    """

    words: tuple[str, ...]
    spelt: tuple[str, ...]
    short: frozenset[str] = frozenset()

    @property
    def is_sided(self) -> bool:
        return LEFT in self.words or RIGHT in self.words

    @property
    def flipped(self) -> "_Reading":
        words, spelt = (tuple(OPPOSITE.get(word, word) for word in part) for part in (self.words, self.spelt))
        return _Reading(words, spelt, self.short)

    @property
    def is_both(self) -> bool:
        """Whether the name is the same from the other side, such as "left and right lung"."""
        return Counter(self.words) == Counter(self.flipped.words)


_KEYS: tuple[Callable[[_Reading], tuple[str, ...]], ...] = (
    lambda name: name.spelt,
    lambda name: name.words,
    lambda name: tuple(sorted(name.words)),
)
"""What must be equal in two names, except for the side: all, the words, or the words in any order."""


def _read(name: str) -> _Reading:
    parts = list(_parts(unicodedata.normalize("NFKC", name).strip()))
    plain_words = {_plain(word) for _, word in parts}
    readings = [_sides_of(word, not plain_words.isdisjoint(_KNOWN_ROMANCE)) for _, word in parts]
    if any(words is not None and not short for words, short in readings):
        # Beside a word that is clear, L and R are something else: the first lumbar vertebra, the ninth reader.
        readings = [(None if short else words, "") for words, short in readings]
    words: list[str] = []
    spelt: list[str] = []
    for (mark, word), (sides, _) in zip(parts, readings, strict=True):
        now = sides or (_plain(word),)
        words += now
        spelt += [mark, *now]
    return _Reading(tuple(words), tuple(spelt), frozenset(short for _, short in readings if short))


def _sides_of(word: str, is_romance: bool) -> tuple[tuple[str, ...] | None, str]:
    """A word that tells a side → its parts, and the pair of short words it is of, or ""; None for any other word."""
    if word in OPPOSITE:
        return (word,), ""
    plain = _plain(word)
    if plain in _LONG:
        return (_LONG[plain],), ""
    for rest in _KNOWN_ORGANS:
        # leftlung, lungleft
        if plain.endswith(rest) and plain[: -len(rest)] in _LONG:
            return (_LONG[plain[: -len(rest)]], rest), ""
        if plain.startswith(rest) and plain[len(rest) :] in _LONG:
            return (rest, _LONG[plain[len(rest) :]]), ""
    if plain[:1] in _INITIALS and plain[1:] in _KNOWN_AREAS:
        return (_INITIALS[plain[0]], plain[1:]), "" if word.isupper() else "l r"
    if plain[:1] in _INITIALS and plain[1:] in _KNOWN_ORGANS:
        return (_INITIALS[plain[0]], plain[1:]), "l r"
    for start, side in (("links", LEFT), ("rechts", RIGHT), ("left", LEFT), ("right", RIGHT)):
        # linksbasal, leftmask; but no leftover
        if plain.startswith(start) and plain != f"{start}over":
            return (side, plain.removeprefix(start)), start
    if plain in _SHORT:
        return _SHORT[plain]
    if is_romance and plain in _LETTERS:
        return (_LETTERS[plain],), "letters"
    return None, ""


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """A text → its words, each after the marks before it: LungLeft2 is Lung, Left and 2."""
    mark, word, at = "", "", 0
    while at < len(text):
        sign = next((sign for sign in _SIGNS if text.startswith(sign, at)), "")
        here = text[at]
        ends = bool(sign) or not (here.isalnum() or unicodedata.category(here).startswith("M"))
        if word and (ends or _is_start(text, at)):
            yield mark, word
            mark = word = ""
        if sign:
            yield mark, _SIGNS[sign]
            mark = ""
        elif ends:
            mark = f"{mark} ".replace("  ", " ") if here.isspace() else mark + here
        else:
            word += here
        at += len(sign) or 1
    if word:
        yield mark, word


def _is_start(text: str, at: int) -> bool:
    """Whether a word begins at a letter or digit that follows another: LungLeft, LLung, lung1."""
    before, here, after = text[at - 1], text[at], text[at + 1 : at + 2]
    if before.isdigit() != here.isdigit():
        return not unicodedata.category(here).startswith("M")
    return here.isupper() and (before.islower() or (before.isupper() and after.islower()))


def _plain(word: str) -> str:
    """A word without case and accents."""
    marked = unicodedata.normalize("NFKD", word.casefold())
    return "".join(mark for mark in marked if unicodedata.category(mark) != "Mn")


def _pairs_of(text: str) -> list[tuple[str, str]]:
    pairs = [pair.split() for pair in text.strip().replace("\n", "/").split("/")]
    return [(_plain(left), _plain(right)) for left, right in pairs]


_KNOWN_ROMANCE, _KNOWN_ORGANS, _KNOWN_AREAS = (frozenset(text.split()) for text in (_ROMANCE, _ORGANS, _AREAS))
_LONG = {word: side for pair in _pairs_of(_WORDS) for word, side in zip(pair, (LEFT, RIGHT), strict=True)}
_SHORT = {
    word: ((side,), " ".join(pair))
    for pair in _pairs_of(_SHORT_WORDS)
    for word, side in zip(pair, (LEFT, RIGHT), strict=True)
}
