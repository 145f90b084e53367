"""Pictures of the study, a panel for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lampe_gguf.evaluate.recall import loss
from lampe_gguf.evaluate.tasks.pictures import draw_places
from lampe_gguf.plot import new_figure, save_figure
from measure.studying.kept import Kept
from measure.studying.measuring import named
from measure.studying.tables import found, joined, label, quarters_of

FACTS = ("lampe", "truncate", "rope")
# what recall is drawn of, and its name for all models; plain RoPE's would leave no room for them
RECALL = {"lampe": "LaMPE", "truncate": "truncation", "jetlong:W/4": "Jet-Long (W/4)",
          "yarn": "YaRN"}


def longest(kept: Kept, what: str) -> int:
    """The greatest length beyond the window at which LaMPE was measured; 0: at none."""
    return max((each.length for each in kept.of(what)
                if each.method == "lampe" and each.length > kept.window), default=0)


def draw_facts(all_kept: Sequence[Kept], path: Path) -> bool:
    """Facts found by place: LaMPE, truncation, plain RoPE. False where none was measured."""
    shown = [(kept, length) for kept in all_kept if (length := longest(kept, "needles"))]
    if not shown:
        return False
    figure = new_figure(9, 0.5 + 1.6 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (kept, length) in zip(panels, shown, strict=True):
        draw_places(axes, {
            label(method): [
                (place or 0.0, score == 1)
                for each in found(kept, "needles", length, method).values()
                for place, score in zip(each.found["places"], each.found["scores"], strict=True)]
            for method in FACTS if found(kept, "needles", length, method)
        })
        axes.axvline(1 - kept.window / length, color="gray", linestyle="--", linewidth=1)
        axes.set_title(f"{kept.model}, trained on {kept.window:,} tokens, reads {length:,}",
                       fontsize=9)
    panels[-1].set_xlabel("where the fact stands in the text (dashed: where the window begins)")
    save_figure(figure, path)
    return True


def draw_recall(all_kept: Sequence[Kept], path: Path) -> bool:
    """Recall loss by quarter of the text, unseen loss dashed. False where none was measured."""
    shown = [(kept, length) for kept in all_kept if (length := longest(kept, "recall"))]
    if not shown:
        return False
    figure = new_figure(1.5 + 3.8 * len(shown), 3.8)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (kept, length) in zip(panels, shown, strict=True):
        for i, (method, name) in enumerate(RECALL.items()):
            mine = found(kept, "recall", length, named(method, kept.window))
            if not mine:
                continue
            parts = quarters_of(mine)
            middles = [(part + 0.5) / len(parts) * length for part in range(len(parts))]
            line = axes.errorbar(middles, [part.mean for part in parts],
                                 [part.error for part in parts], marker="o", markersize=4,
                                 capsize=3, color=f"C{i}", label=name)
            axes.axhline(loss(joined(mine, "fresh", list(mine))).mean,
                         color=line[0].get_color(), linestyle="--", linewidth=1)
        axes.set_title(f"{kept.model}, {length:,} tokens", fontsize=9)
        axes.set_xlabel("where the excerpt stands")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("nats a token, fed again (dashed: never read)")
    most = max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    most.legend(fontsize=8)
    save_figure(figure, path)
    return True
