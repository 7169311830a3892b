"""Small charts as SVG: text in, text out. Colours are the page's, so both themes can be read."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

WIDTH = 640  # of a chart, in its own units; a page scales it
Bar = tuple[str, float, float, float]  # label, share, and the ends of its interval


def bars(values: Sequence[Bar], *, mark: float | None = None, mark_text: str = "") -> Markup:
    """Horizontal bars of shares from 0 to 1 with their intervals, and one dotted line."""
    left, right, step = 210, 70, 30
    span = WIDTH - left - right
    height = step * len(values) + (24 if mark is not None else 8)
    parts = []
    for number, (label, value, low, high) in enumerate(values):
        y = step * number
        text = f"{100 * value:.1f} %"
        start, end = left + span * low, left + span * high
        parts.append(
            f'<text x="{left - 10}" y="{y + 19}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 6}" width="{span * value:.1f}" height="18"/>'
            f'<path class="whisker" d="M{start:.1f} {y + 15}H{end:.1f}"/>'
            f'<text x="{end + 8:.1f}" y="{y + 19}">{text}</text>'
        )
    if mark is not None:
        x, bottom = left + span * mark, step * len(values)
        parts.append(
            f'<path class="mark" d="M{x:.1f} 0V{bottom}"/>'
            f'<text class="soft" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{escape(mark_text)}</text>"
        )
    return _svg(height, parts)


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, x: str, y: str) -> Markup:
    """Curves over a common axis; y starts at 0."""
    left, right, top, bottom = 54, 130, 28, 44
    width, height = WIDTH - left - right, 200
    points = [point for _, curve in series for point in curve]
    if not points:
        return Markup()
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    most = max(max(p[1] for p in points), 1e-9)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        share = (point[0] - first) / (last - first) if last > first else 0.5
        return left + width * share, top + height * (1 - point[1] / most)

    parts = [
        f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>',
        *(
            f'<text class="soft" x="{left - 8}" y="{top + height * (1 - share) + 5:.0f}" '
            f'text-anchor="end">{most * share:.2g}</text>'
            for share in (0, 0.5, 1)
        ),
        f'<text class="soft" x="{left}" y="{top + height + 20}">{first:g}</text>',
        f'<text class="soft" x="{left + width}" y="{top + height + 20}" text-anchor="end">'
        f"{last:g}</text>",
        f'<text class="soft" x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">'
        f"{escape(x)}</text>",
        f'<text class="soft" x="{left}" y="16" text-anchor="middle">{escape(y)}</text>',
    ]
    for number, (label, curve) in enumerate(series):
        placed = [place(point) for point in curve]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in placed)
        parts.append(f'<path class="curve curve{number % 4}" d="M{path}"/>')
        if len(placed) == 1:
            parts.append(
                f'<circle class="bar" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3"/>'
            )
        end = placed[-1]
        parts.append(
            f'<text class="curve{number % 4} label" x="{end[0] + 8:.1f}" y="{end[1] + 5:.1f}">'
            f"{escape(label)}</text>"
        )
    return _svg(top + height + bottom, parts)


def strip(rows: Sequence[tuple[str, Sequence[float]]]) -> Markup:
    """Shares from 0 to 1 of many participants, a dot each, and their mean."""
    left, right, step = 210, 70, 34
    span = WIDTH - left - right
    parts = []
    for number, (label, values) in enumerate(rows):
        y = step * number + step / 2
        parts.append(
            f'<text x="{left - 10}" y="{y + 5}" text-anchor="end">{escape(label)}</text>'
            f'<path class="axis" d="M{left} {y}H{left + span}"/>'
        )
        parts += [
            # Dots of one value lie beside each other, up and down in turn.
            f'<circle class="dot" cx="{left + span * v:.1f}" cy="{y + (k % 5 - 2) * 3:.1f}" r="3"/>'
            for k, v in enumerate(sorted(values))
        ]
        if values:
            mean = left + span * sum(values) / len(values)
            parts.append(f'<path class="mean" d="M{mean:.1f} {y - 12}V{y + 12}"/>')
    bottom = step * len(rows)
    parts.append(
        f'<text class="soft" x="{left}" y="{bottom + 16}" text-anchor="middle">0 %</text>'
        f'<text class="soft" x="{left + span}" y="{bottom + 16}" text-anchor="middle">100 %</text>'
    )
    return _svg(bottom + 24, parts)


def _svg(height: float, parts: Sequence[str]) -> Markup:
    """Text in parts is escaped by whoever wrote them."""
    body = "".join(parts)
    return Markup(
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:g}" xmlns="http://www.w3.org/2000/svg">'
        f"{body}</svg>"
    )
