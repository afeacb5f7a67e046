"""Small SVG pictures of a trial: its learning curve and its confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tuner.training.results import Confusion

FONT = "font-family='system-ui,sans-serif' font-size='11' fill='#4a5260'"
LINE, ACCENT = "#d9dde3", "#2f6fde"
MAX_NAMED = 40
"""Number of classes; with more, names and counts would overlap."""


def curve_picture(curve: Mapping[int, float], *, best_epoch: int) -> str:
    """Draw validation accuracy (0..1) by epoch, with the best epoch marked."""
    width, height, left, right, top, bottom = 420, 240, 52, 16, 16, 34
    low, high = min(curve.values()), max(curve.values())
    margin = (high - low) * 0.08 or 0.01
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    last = max(curve)

    def x(epoch: int) -> float:
        return left + (width - left - right) * (epoch - 1) / max(1, last - 1)

    def y(accuracy: float) -> float:
        return top + (height - top - bottom) * (high - accuracy) / (high - low)

    parts = []
    for share in (0.0, 0.5, 1.0):
        accuracy = low + share * (high - low)
        parts.append(f"<path d='M{left} {y(accuracy):.1f}H{width - right}' stroke='{LINE}'/>")
        parts.append(f"<text x='{left - 6}' y='{y(accuracy) + 4:.1f}' text-anchor='end' {FONT}>{accuracy:.1%}</text>")
    for epoch in sorted({1, last}):
        parts.append(f"<text x='{x(epoch):.1f}' y='{height - 14}' text-anchor='middle' {FONT}>{epoch}</text>")
    parts.append(f"<text x='{(left + width - right) / 2}' y='{height - 14}' text-anchor='middle' {FONT}>epoch</text>")
    points = " ".join(f"{x(epoch):.1f},{y(accuracy):.1f}" for epoch, accuracy in sorted(curve.items()))
    parts.append(f"<polyline points='{points}' fill='none' stroke='{ACCENT}' stroke-width='2'/>")
    best = curve[best_epoch]
    parts.append(
        f"<circle cx='{x(best_epoch):.1f}' cy='{y(best):.1f}' r='4' fill='{ACCENT}'>"
        f"<title>epoch {best_epoch}: {best:.2%}</title></circle>"
    )
    return _svg(width, height, parts)


def confusion_picture(confusion: Confusion, class_names: Sequence[str]) -> str:
    """Draw the confusion matrix: rows are true classes, columns predicted ones; each row is shaded by its shares."""
    num_classes = len(confusion)
    is_named = num_classes <= MAX_NAMED
    names = [name if len(name) <= 12 else f"{name[:11]}…" for name in class_names]
    side = 28 if is_named else max(2, 600 // num_classes)
    margin = 20 + (7 * max(map(len, names)) if is_named else 0)
    size = margin + num_classes * side + 12
    parts = [
        f"<text x='{margin}' y='12' {FONT}>taken for</text>",
        f"<text transform='translate(12,{margin}) rotate(-90)' text-anchor='end' {FONT}>is</text>",
    ]
    for row, counts in enumerate(confusion):
        top, total = margin + row * side, sum(counts)
        if is_named:
            middle = top + side / 2 + 4
            parts.append(f"<text x='{margin - 5}' y='{middle}' text-anchor='end' {FONT}>{escape(names[row])}</text>")
            turned = f"translate({margin + row * side + side / 2 + 4},{margin - 5}) rotate(-90)"
            parts.append(f"<text transform='{turned}' {FONT}>{escape(names[row])}</text>")
        for column, count in enumerate(counts):
            if not count:
                continue
            colour = ACCENT if row == column else "#c2452d"
            opacity = 0.12 + 0.78 * count / total
            left = margin + column * side
            parts.append(
                f"<rect x='{left}' y='{top}' width='{side}' height='{side}' fill='{colour}' opacity='{opacity:.2f}'/>"
            )
            if is_named:
                ink = "#fff" if opacity > 0.5 else "#1c2430"
                parts.append(
                    f"<text x='{left + side / 2}' y='{top + side / 2 + 4}' text-anchor='middle' "
                    f"{FONT.replace('#4a5260', ink)}>{count}</text>"
                )
    end = margin + num_classes * side
    parts.append(
        f"<rect x='{margin}' y='{margin}' width='{end - margin}' height='{end - margin}' fill='none' stroke='{LINE}'/>"
    )
    return _svg(size, size, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    box = f"width='{width}' height='{height}' viewBox='0 0 {width} {height}'"
    background = f"<rect width='{width}' height='{height}' fill='#fff'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {box}>{background}{''.join(parts)}</svg>"
