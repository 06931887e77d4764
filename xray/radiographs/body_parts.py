"""The words by which headers name a part of the body and a view, in the languages that archives write in.

Every part has one name of ours, so that nothing of a header's free text, which may hold a person's name, is passed on.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable

CHEST, ANIMAL, LIMB = "chest", "animal", "arm or leg"
FRONTAL, LATERAL, OBLIQUE = "frontal", "lateral", "oblique"

# Of each part: whole words; beginnings of words; and what may stand anywhere, for scripts without spaces and for roots
# that are run together with others ("RXTORAX").
_PARTS: dict[str, tuple[str, str, str]] = {
    CHEST: (
        "chest cxr brust thx heart dada paru phoi nguc ogk огк pulmao pulmoes brost bryst thorax torax",
        "chestp chestap chestl thora lung pulmon poumon polmon poitrin pluc klatk hrudni mellkas keuhko brustkorb "
        "brostkorg brystkasse toraks akciger gogus грудн гръд легк леген θωρακ gruden grudn krutin krusu rindkere "
        "toracic",
        "thorax torax torace rxchest dxchest xrchest 胸 肺 흉부 가슴 חזה صدر ทรวงอก หน้าอก ปอด छाती",
    ),
    "abdomen": (
        "abdomen abd kub bauch buik ventre bladder gallbladder kidney kidneys colon stomach liver pancreas spleen "
        "duodenum ileum jejunum rectum ureter urethra ugi karin",
        "abdom buikover brzuch hasi brich живот брюш черев",
        "腹 복부 بطن ช่องท้อง ท้อง",
    ),
    "pelvis": (
        "pelvis hip hips hufte bacin cadera anca bekken lonni ilium prostate uterus kalca hofte hoft lantio",
        "pelvi becken bassin huftgel miednic biodr таз тазоб бедр hanche cadera",
        "骨盆 骨盤 股関節 髋 골반 고관절 حوض אגן เชิงกราน สะโพก",
    ),
    "spine": (
        "spine cspine tspine lspine lws bws hws rachis colonna cervical lumbar sacrum coccyx sspine lsspine tlspine "
        "ctspine omurga",
        "wirbel halswirbel lendenwirbel brustwirbel column colonne kregoslup позвон thoracolumb lumbos lumbal cervico "
        "sacro wholespine gerinc patere rygg ryggrad wervel",
        "脊 頚椎 颈椎 頸椎 腰椎 胸椎 尾骨 仙骨 척추 경추 요추 عمود פקרי กระดูกสันหลัง",
    ),
    "ribs": ("rib ribs costae cote cotes zebra żebra", "rippen costill costal ребр zeber", "肋骨 肋 늑골"),
    "sternum": ("sternum", "sterno brustbein esternon грудин mostek", "胸骨"),
    "shoulder": (
        "shoulder shoulders clavicle scapula spalla acj omuz axilla olka",
        "schult epaul hombro ombro clavic klavik schlussel skapul bark плеч ключиц acromio acjoint schouder",
        "肩 锁骨 鎖骨 어깨 كتف כתף ไหล่",
    ),
    "arm": (
        "arm humerus elbow elbows forearm radius ulna upperarm lowerarm codo coude gomito lokiec dirsek albue",
        "ellenbog ellbogen unterarm oberarm humer avantbras antebr avambr локт предплеч elleboog",
        "肘 前腕 上腕 前臂 上臂 팔꿈치 مرفق ساعد מרפק ข้อศอก แขน",
    ),
    "hand": (
        "hand hands hande hander wrist wrists finger fingers fingre thumb thumbs digit digits polso pols reka dlon "
        "ruka hnd scaphoid skafoid phalanx phalanges boneage",
        "handgel handwu lefthand righthand lhand rhand fingers daumen carpal carpus carpo metacarp poignet muneca "
        "nadgarst кист запяст руки handen",
        "手 腕関節 손 手指 手腕 骨龄 骨年齢 معصم أصبع כףיד שורשכף มือ นิ้ว ข้อมือ हाथ",
    ),
    "leg": (
        "leg legs knee knees femur tibia fibula thigh calf patella genou ginocchio rodilla joelho knie bein beine knae "
        "polvi",
        "kniegel oberschenkel unterschenkel femor femur tibia lowerleg upperleg kolan колен голен knaa knee",
        "膝 下腿 小腿 大腿 무릎 ركبة ברך เข่า",
    ),
    "foot": (
        "foot feet ankle ankles toe toes heel calcaneus calcis pied piede voet stopa ayak jalka tarsus metatarsus",
        "fuss sprunggel knochel calcan tobillo tornozelo cavigl cheville stopa стоп голеностоп enkel zehe",
        "足 踝 발목 قدم كاحل רגל קרסול เท้า",
    ),
    "head": (
        "head skull sinus sinuses orbit orbits mandible maxilla teeth tooth dental jaw tmj nasal nose zygoma kopf "
        "cabeza crane cranio facial nnh",
        "schadel cranial crani kiefer zahn sinus craneo czaszk череп pazuch пазух orbit panoram ortopant orthopant "
        "facialb mandib schedel",
        "頭 头 副鼻腔 鼻 颌 顎 歯 머리 두개 رأس جمجمة ראש גולגולת ศีรษะ กะโหลก",
    ),
    "neck": ("neck hals larynx pharynx thyroid trachea", "softtissueneck adenoid", "頸部 颈部 رقبة"),
    "breast": ("breast mamma mama seno", "mammo mamogr", "乳"),
    "animal": (
        "canine feline equine bovine avian veterinary veterinaria canino felino hund katze perro chien",
        "canin felin equin veterin ветерин",
        "动物 動物",
    ),
    "whole body": ("wholebody babygram skeleton", "skelet", "全身"),
    LIMB: ("limb limbs", "extremit upperext lowerext upperlimb lowerlimb konczyn конечн", "四肢 上肢 下肢"),
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
_LIMBS = frozenset({"shoulder", "arm", "hand", "leg", "foot"})
_COMPOUNDS = {
    "chestabdomen": (CHEST, "abdomen"), "chestabdpelvis": (CHEST, "abdomen", "pelvis"), "neckchest": ("neck", CHEST),
    "abdomenpelvis": ("abdomen", "pelvis"), "headneck": ("head", "neck"),
    "neckchestabdomen": ("neck", CHEST, "abdomen"),
    "neckchestabdpelv": ("neck", CHEST, "abdomen", "pelvis"),
}  # fmt: skip
"""Body Part Examined of several parts, in one word (PS3.16 annex L)."""
_MISSPELT = 5
"""Letters that a word needs at least to be known where one is wrong, left out, put in, or has changed places with the
next: of shorter ones too many mean something."""
_DECUBITUS = "decub"
"""The beginning of a word beside which "lateral" says how the patient lies."""
_THORACIC = ("thoracic", "thoracal", "thoracol", "thoraco", "toracic", "toracol", "thorakal")
"""Beginnings of words that beside the spine say which part of that."""
_ONLY_IN_PLACE = {
    "mano": "hand", "main": "hand", "mao": "hand", "maos": "hand", "el": "hand", "kez": "hand", "kasi": "hand",
    "рука": "hand", "يد": "hand", "bras": "arm", "braccio": "arm", "pie": "foot", "pe": "foot", "pes": "foot",
    "fot": "foot", "발": "foot", "gamba": "leg", "jambe": "leg", "diz": "leg", "kna": "leg", "нога": "leg",
    "face": "head", "skull": "head", "brain": "head", "eye": "head", "ear": "head", "iac": "head", "mouth": "head",
    "scalp": "head", "tongue": "head", "dos": "spine", "back": "spine",
}  # fmt: skip
"""Words that mean something else in a sentence, and a part where a part is expected."""
_STROKES = str.maketrans("łđøħı", "ldohi")
"""Letters with a stroke, or without their dot, which have no accent to take away."""


def parts_in(text: str, is_place: bool = False) -> frozenset[str]:
    """The parts of the body that a text names, in names of ours. is_place: it is a name of a part and no sentence."""
    words = _words(text)
    found = _found(words, _parts())
    if is_place:
        found |= {part for word in words if (part := _ONLY_IN_PLACE.get(word))}
        found |= set(_COMPOUNDS.get("".join(words), ()))
        found = found or _nearly(words)
    if {CHEST, "spine"} <= found:
        found = _found([word for word in words if not word.startswith(_THORACIC)], _parts()) | {"spine"}
    return narrowed(found)


def narrowed(parts: Iterable[str]) -> frozenset[str]:
    """Parts of the body without LIMB where it is said which one."""
    found = frozenset(parts)
    return found - {LIMB} if found & _LIMBS else found


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
    found = {
        name
        for name, names in table.items()
        if any(word in names.whole or word.startswith(names.beginnings) for word in words)
    }
    # The longest first, and each letter once: words for the breastbone and the thoracic spine hold that for the chest.
    roots = [(root, name) for name, names in table.items() for root in names.anywhere]
    joined = "".join(words)
    for root, name in sorted(roots, key=lambda one: -len(one[0])):
        if root in joined:
            found.add(name)
            joined = joined.replace(root, " ")
    return found


def _nearly(words: list[str]) -> set[str]:
    """The part that a misspelt word means; none where it may mean several."""
    known = [(name, one) for name, names in _parts().items() for one in names.whole if len(one) >= _MISSPELT]
    long = [word for word in words if len(word) >= _MISSPELT]
    found = {name for name, one in known if any(_is_misspelt(word, one) for word in long)}
    return found if len(found) == 1 else set()


def _is_misspelt(word: str, right: str) -> bool:
    """Whether one letter is wrong, left out, put in, or has changed places with the next."""
    start = 0
    while start < min(len(word), len(right)) and word[start] == right[start]:
        start += 1
    rest, wanted = word[start:], right[start:]
    return (
        rest[1:] == wanted[1:]
        or rest[1:] == wanted
        or rest == wanted[1:]
        or (rest[1::-1] == wanted[:2] and rest[2:] == wanted[2:])
    )


def _words(text: str) -> list[str]:
    """Its words in small letters, without accents; "p.a." is one."""
    marks = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(mark for mark in marks if not unicodedata.combining(mark)).translate(_STROKES)
    plain = re.sub(r"\b([^\W\d_])\. ?([^\W\d_])\b", r"\1\2", plain)
    return re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", plain))
