"""The blocks of code of README and docs/, as tests run them: as they stand, but for what a test has no time for."""

import re
from collections.abc import Mapping


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def section(page: str, title: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    marks, start = next(
        (found[1], found.end()) for found in re.finditer(r"^(#+) (.*)$", page, re.MULTILINE) if found[2] == title
    )
    end = re.search(rf"^#{{1,{len(marks)}}} ", page[start:], re.MULTILINE)
    return page[start : start + end.start()] if end else page[start:]


def replaced(text: str, others: Mapping[str, str]) -> str:
    """The same with other words. others: what needs a GPU, a download or hours, or is taken here → what stands for it;
    each has to be there."""
    assert [given for given in others if given not in text] == []
    # At once: what stands for one may hold another.
    return re.sub("|".join(map(re.escape, others)), lambda found: others[found[0]], text)
