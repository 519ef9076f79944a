"""The page itself: one HTML file with its style, without a script but the one that turns light into dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from skyset.html import Html, element, joined, text
from skyset.versions import __version__

#: By which a page of ours is known, to be replaced by the next one.
GENERATOR = "skyset report"

#: What the page may do: show its own images. What somebody wrote into a name or a reason cannot be run, nor fetch anything.
_POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"
)

_SCRIPT = """
const root = document.documentElement, button = document.getElementById("theme");
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const say = () => { button.textContent = dark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; say(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
say();
"""

_LIGHT = """color-scheme: light; --page: #ffffff; --card: #f4f6f8; --text: #1a1f24; --soft: #515c67; --line: #d3dae0;
  --link: #0b5cab; --bar: #3f87c4; --over: #a33c00; --bad: #a31515; --sky: #eef2f6;
  --step0: #a9cdea; --step1: #86b7e0; --step2: #639fd3; --step3: #4486c2; --step4: #2b6cab;
  --step5: #17528f; --step6: #0a386c;
  --dot: #d14f00;"""
_DARK = """color-scheme: dark; --page: #13171b; --card: #1c2228; --text: #e7ebee; --soft: #a7b2bc; --line: #38424b;
  --link: #80c1ff; --bar: #5aa2dc; --over: #ffb07a; --bad: #ff9a92; --sky: #1a2128;
  --step0: #1e456b; --step1: #255a8c; --step2: #3072ac; --step3: #428cc9; --step4: #62a8df;
  --step5: #8cc4ef; --step6: #bfe0fa;
  --dot: #ffb45e;"""
_STYLE = (
    f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {_DARK} }} }}
:root[data-theme=dark] {{ {_DARK} }}
"""
    + """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.25rem; }
.top { display: flex; gap: 1rem; align-items: flex-start; justify-content: space-between; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
.soft, figcaption, .tick { color: var(--soft); }
small, figcaption { font-size: .875rem; }
button { font: inherit; padding: .25rem .8rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--card);
  color: var(--text); cursor: pointer; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: .75rem 0 0; padding: 0; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .6rem; margin: 1rem 0; }
dl.facts div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dl.facts dd { font-size: 1.15rem; font-weight: 600; }
dl.facts .long { grid-column: span 2; }
dl.facts .long dd { font-size: 1rem; }
th[scope=row] { min-width: 10rem; }
.problem { border-left: 4px solid var(--bad); background: var(--card); padding: .6rem 1rem; margin: 1rem 0; }
.problem h2 { color: var(--bad); border: 0; margin: 0; padding: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; min-width: 60%; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
th { font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.wide { min-width: 18rem; max-width: 36rem; overflow-wrap: anywhere; }
code, .mono { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85em; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg.map { max-width: 60rem; margin: 0 auto; }
.sky { fill: var(--sky); stroke: var(--line); }
.grid { fill: none; stroke: var(--line); stroke-width: 1; opacity: .8; }
.tick { fill: var(--soft); font-size: 15px; text-anchor: middle; }
.dots, .halo { stroke: var(--dot); stroke-width: 2.2; stroke-linecap: round; }
.halo { stroke: var(--page); stroke-width: 3.4; }
.bars { fill: var(--bar); }
.line { fill: none; stroke: var(--over); stroke-width: 1.6; }
.axis { stroke: var(--soft); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .5rem 0; padding: 0;
  font-size: .875rem; }
.legend i { display: inline-block; width: 1rem; height: .8rem; border-radius: .15rem; margin-right: .4rem; }
.legend i.dot { width: .6rem; height: .6rem; border-radius: 50%; background: var(--dot); }
.legend i.first { background: var(--bar); }
.legend i.second { height: .2rem; background: var(--over); vertical-align: middle; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr)); gap: .8rem; }
.cards > figure { background: var(--card); border-radius: .5rem; padding: .7rem .8rem; min-width: 0; }
.cards .name { font-weight: 600; overflow-wrap: anywhere; }
.ends { display: flex; justify-content: space-between; gap: .5rem; font-size: .8rem; color: var(--soft); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); gap: 1rem; }
.pictures .full { grid-column: 1 / -1; }
.pictures img { display: block; width: 100%; height: auto; border-radius: .4rem; background: #fff; }
.share { display: grid; grid-template-columns: minmax(5rem, 14rem) 1fr max-content; gap: .2rem .7rem; align-items: center;
  font-size: .9rem; max-width: 46rem; }
.share > * { overflow-wrap: anywhere; }
.cards .share { grid-template-columns: minmax(3rem, 7rem) 1fr max-content; font-size: .8rem; }
.meter { display: block; height: .7rem; border-radius: .2rem; background: var(--line); overflow: hidden; }
.meter svg { height: 100%; }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; padding-bottom: 2rem; color: var(--soft); font-size: .875rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) {
  h1 { font-size: 1.3rem; }
  table.stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.stack, table.stack tbody, table.stack tr, table.stack td, table.stack th { display: block; border: 0; padding: 0;
    text-align: left; white-space: normal; max-width: none; min-width: 0; }
  table.stack caption { display: block; }
  .tick { font-size: 30px; }
  table.stack tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  table.stack td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
  table.stack td:empty { display: none; }
  .pictures .scroll img { width: auto; max-width: none; min-width: 100%; height: 17rem; }
}
@media print { nav, button { display: none; } }
"""
    + "\n".join(
        f".step{k} {{ fill: var(--step{k}); stroke: var(--step{k}); stroke-width: 1; background: var(--step{k}); }}"
        for k in range(7)
    )
)


def document(title: str, head: Sequence[Html], sections: Sequence[tuple[str, str, Html]], foot: Html) -> str:
    """A whole page.

    Args:
        title: of it.
        head: what stands under the title, over the links to the sections.
        sections: name, heading and content of each.
        foot: its last lines.
    """
    policy = _POLICY.format(style=_digest(_STYLE), script=_digest(_SCRIPT))
    links = (element("li", element("a", heading, href=f"#{name}")) for name, heading, _ in sections)
    body = joined(
        [
            element(
                "header",
                element("div", element("h1", title), _toggle(), class_="top"),
                head,
                element("nav", element("ul", links), aria_label="Sections"),
            ),
            element("main", (_section(*each) for each in sections)),
            element("footer", foot),
            element("script", Html(_SCRIPT)),
        ]
    )
    heads = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", title),
            element("style", Html(_STYLE)),
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{heads}</head>\n<body>{body}</body>\n</html>\n'


def is_report(head: bytes) -> bool:
    """Whether a file that begins so (4 kB suffice) is a page of ours."""
    return head.startswith(b"<!doctype html>") and f'content="{GENERATOR} '.encode() in head


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _toggle() -> Html:
    return element("button", "Dark", id="theme", type="button", hidden=True, aria_label="Change between light and dark")


def _section(name: str, heading: str, content: Html) -> Html:
    return element("section", element("h2", heading, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str,
    numbers: Sequence[int] = (),
    wide: Sequence[int] = (),
    most_bytes: int = 400_000,
    total: int | None = None,
) -> Html:
    """A table that scrolls on its own, and on a phone stands as blocks; its first cells are the rows' names.

    Args:
        heads: of the columns.
        rows: cells, as `element` takes content.
        caption: what it is a table of.
        numbers: places of columns of numbers.
        wide: places of columns of long text.
        most_bytes: rows beyond are left out, and counted under the table.
        total: how many rows there are: those beyond are not even made.
    """
    kinds = dict.fromkeys(numbers, "n") | dict.fromkeys(wide, "wide")
    body: list[Html] = []
    size = left_out = 0
    for row in rows:
        if size > most_bytes:
            left_out += 1
            if total is None:
                continue
            left_out = total - len(body)
            break
        cells = [element("th", row[0], scope="row")]
        cells += [element("td", each, class_=kinds.get(k), data_label=heads[k]) for k, each in enumerate(row[1:], 1)]
        body.append(element("tr", cells))
        size += len(body[-1])
    head = element("tr", (element("th", each, scope="col", class_=kinds.get(k)) for k, each in enumerate(heads)))
    made = element("table", element("caption", caption), element("thead", head), element("tbody", body), class_="stack")
    more = element("p", f"and {left_out:,} more, which would make this page too long", class_="soft") if left_out else None
    return joined([element("div", made, class_="scroll", role="region", tabindex="0", aria_label=caption), more])


def facts(values: Sequence[tuple[str, object]]) -> Html:
    """Named values, those that are not empty, as cards."""
    shown = ((name, text(value)) for name, value in values if value not in ("", None))
    cards = (
        element("div", element("dt", name), element("dd", value), class_="long" if len(value) > 20 else None)
        for name, value in shown
    )
    return element("dl", cards, class_="facts")


def shares(counts: Sequence[tuple[str, int]], total: int, words: str) -> Html:
    """Bars of counts with their names, as shares of a total."""
    cells: list[Html] = []
    for name, count in counts:
        share = count / max(1, total)
        path = element("path", d=Html(f"M0 0h{100 * share:.2f}v1H0z"), class_="bars")
        bar = element("svg", path, viewBox="0 0 100 1", preserveAspectRatio="none")
        cells += [
            element("span", name),
            element("span", bar, class_="meter", aria_hidden="true"),
            element("span", f"{count:,} ({share:.1%})"),
        ]
    return element("div", cells, class_="share", role="group", aria_label=words)


def folded(summary: str, *content: object) -> Html:
    """What is only seen when it is asked for."""
    return element("details", element("summary", summary), *content)


def note(words: object) -> Html:
    return element("p", words, class_="soft")


def name_of(column: str) -> Html:
    """A column's name, which may be broken after its underscores."""
    return element("span", Html(cut(column).replace("_", "_<wbr>")), class_="mono")


def number(value: float | int | None) -> str:
    """A number as people read it: whole ones digit by digit, others with six."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    return f"{value:.6g}"


def cut(value: object, longest: int = 300) -> Html:
    """A text of bounded length."""
    return text(value, longest)
