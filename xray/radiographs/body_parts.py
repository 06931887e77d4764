"""The words by which headers name a part of the body and a view, in the languages that archives write in.

Every part has one name of ours, so that nothing of a header's free text, which may hold a person's name, is passed on.
"""

import dataclasses
import functools
import re
import unicodedata

CHEST, ANIMAL = "chest", "animal"
FRONTAL, LATERAL, OBLIQUE = "frontal", "lateral", "oblique"

# Of each part: whole words; beginnings of words; and what may stand anywhere, for scripts without spaces and for roots
# that are run together with others ("RXTORAX").
_PARTS: dict[str, tuple[str, str, str]] = {
    CHEST: (
        "chest cxr brust thx heart dada paru phoi nguc ogk огк",
        "chestp chestap chestl thora lung pulmon poumon polmon pluc klatk hrudni mellkas keuhko brostkorg "
        "brystkasse toraks akciger gogus грудн легк θωρακ gruden",
        "thorax torax torace rxchest dxchest xrchest 胸 肺 흉부 가슴 חזה صدر ทรวงอก",
    ),
    "abdomen": (
        "abdomen abd kub bauch buik ventre",
        "abdom buikover brzuch hasi brich живот брюш",
        "腹 복부 بطن",
    ),
    "pelvis": (
        "pelvis hip hips hufte bacin cadera anca bekken lonni",
        "pelvi becken bassin huftgel miednic biodr таз тазоб бедр hanche cadera",
        "骨盆 骨盤 股関節 髋 골반",
    ),
    "spine": (
        "spine cspine tspine lspine lws bws hws rachis colonna cervical lumbar sacrum coccyx sspine",
        "wirbel halswirbel lendenwirbel brustwirbel column colonne kregoslup позвон thoracolumb lumbos lumbal cervico "
        "sacro wholespine gerinc patere rygg ryggrad wervel",
        "脊 頚椎 颈椎 腰椎 胸椎 척추",
    ),
    "ribs": ("rib ribs costae cote cotes zebra żebra", "rippen costill costal ребр zeber", "肋 늑골"),
    "sternum": ("sternum", "sterno brustbein esternon грудин mostek", "胸骨"),
    "shoulder": (
        "shoulder shoulders clavicle scapula spalla",
        "schult epaul hombro ombro clavic klavik schlussel skapul bark плеч ключиц acromio acjoint schouder",
        "肩 锁骨 鎖骨 어깨",
    ),
    "arm": (
        "arm humerus elbow forearm radius ulna upperarm lowerarm codo coude gomito lokiec",
        "ellenbog ellbogen unterarm oberarm humer avantbras antebr avambr локт предплеч elleboog",
        "肘 前腕 上腕 팔꿈치",
    ),
    "hand": (
        "hand hands wrist finger fingers thumb digit polso pols reka dlon ruka",
        "handgel handwu fingers daumen carpal carpus metacarp poignet muneca nadgarst кист запяст handen",
        "手 腕関節 손 手指",
    ),
    "leg": (
        "leg legs knee knees femur tibia fibula thigh calf patella genou ginocchio rodilla joelho knie bein beine",
        "kniegel oberschenkel unterschenkel femor femur tibia extremity lowerleg upperleg kolan колен голен knaa knee",
        "膝 下腿 大腿 무릎",
    ),
    "foot": (
        "foot feet ankle toe toes heel calcaneus pied piede voet stopa",
        "fuss sprunggel knochel calcan tobillo tornozelo cavigl cheville stopa стоп голеностоп enkel zehe",
        "足 踝 발목",
    ),
    "head": (
        "head skull sinus sinuses orbit orbits mandible maxilla teeth tooth dental jaw tmj nasal nose zygoma kopf "
        "cabeza crane cranio facial nnh",
        "schadel cranial crani kiefer zahn sinus craneo czaszk череп pazuch пазух orbit panoram ortopant orthopant "
        "facialb mandib schedel",
        "頭 头 副鼻腔 鼻 颌 顎 歯 머리",
    ),
    "neck": ("neck hals larynx trachea", "softtissueneck adenoid", "頸部 颈部"),
    "breast": ("breast mamma mama seno", "mammo mamogr", "乳"),
    "animal": (
        "canine feline equine bovine avian veterinary veterinaria canino felino hund katze perro chien",
        "canin felin equin veterin ветерин",
        "动物 動物",
    ),
    "whole body": ("wholebody babygram skeleton", "skelet", "全身"),
}  # fmt: skip
_VIEWS: dict[str, tuple[str, str, str]] = {
    FRONTAL: (
        "pa ap frontal frontale front frente face dv apsupine paerect thang",
        "frontal posteroant anteropost posterioant anteriorpost прям przednio tylno",
        "正位 正面 后前 後前 前后 前後 정면",
    ),
    LATERAL: (
        "lat ll rl lateral laterale laterales latero lateralis profil profile perfil profilo seitlich seitl seite bok "
        "yan nghieng",
        "laterolat laterale seitlich seiten perfil profil bocz боков zijdel lateraal sidebild",
        "侧位 側位 側面 侧面 측면",
    ),
    OBLIQUE: ("rao lao rpo lpo oblique obl", "obli schrag skosn косая", "斜位"),
}  # fmt: skip
PARTS = tuple(_PARTS)
"""Our names of the parts of the body."""
_DECUBITUS = "decub"
"""The beginning of a word beside which "lateral" says how the patient lies."""
_THORACIC = ("thoracic", "thoracal", "thoracol", "thoraco", "toracic", "toracol", "thorakal")
"""Beginnings of words that beside the spine say which part of that."""
_ONLY_IN_PLACE = {"mano": "hand", "main": "hand", "pie": "foot", "bras": "arm", "braccio": "arm", "face": "head",
                  "skull": "head", "brain": "head", "gamba": "leg", "jambe": "leg", "dos": "spine"}  # fmt: skip
"""Words that mean something else in a sentence, and a part where a part is expected."""


def parts_in(text: str, is_place: bool = False) -> frozenset[str]:
    """The parts of the body that a text names, in names of ours. is_place: it is a name of a part and no sentence."""
    words = _words(text)
    found = _found(words, _parts())
    if is_place:
        found |= {part for word in words if (part := _ONLY_IN_PLACE.get(word))}
    if {CHEST, "spine"} <= found:
        found = _found([word for word in words if not word.startswith(_THORACIC)], _parts()) | {"spine"}
    return frozenset(found)


def views_in(text: str) -> frozenset[str]:
    """Which of FRONTAL, LATERAL and OBLIQUE a text names."""
    words = _words(text)
    if any(word.startswith(_DECUBITUS) for word in words):
        return frozenset()
    found = _found(words, _views())
    return frozenset({OBLIQUE} if found == {OBLIQUE, LATERAL} else found)


@dataclasses.dataclass(frozen=True)
class _Names:
    """Whole words, beginnings of words, and what may stand anywhere, as `_words` has them."""

    whole: frozenset[str]
    beginnings: tuple[str, ...]
    anywhere: tuple[str, ...]


@functools.cache
def _parts() -> dict[str, _Names]:
    return _folded(_PARTS)


@functools.cache
def _views() -> dict[str, _Names]:
    return _folded(_VIEWS)


def _folded(table: dict[str, tuple[str, str, str]]) -> dict[str, _Names]:
    return {name: _Names(frozenset(_words(w)), tuple(_words(b)), tuple(_words(a))) for name, (w, b, a) in table.items()}


def _found(words: list[str], table: dict[str, _Names]) -> set[str]:
    joined = "".join(words)
    return {
        name
        for name, names in table.items()
        if any(word in names.whole or word.startswith(names.beginnings) for word in words)
        or any(root in joined for root in names.anywhere)
    }


def _words(text: str) -> list[str]:
    """Its words in small letters, without accents; "p.a." is one."""
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(mark))
    plain = re.sub(r"\b([^\W\d_])\. ?([^\W\d_])\b", r"\1\2", plain)
    return re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", plain))
