"""Draw where the bytes of one GZ3D row go in each way of reading: ``benchmarks/bytes.png``.

The stages follow from the code: ours in ``reader.py`` and ``batches.py`` of ``skyset/loading``, those of `datasets` 5.2 in
its ``hdf5`` module, its Arrow tables, its numpy and torch formatters and torch's ``default_collate``.
"""

from pathlib import Path

from matplotlib.figure import Figure

PIXELS = 525 * 525 * (3 + 4)  # uint8: image and four masks
OFFSETS = 525 * 525 * 4  # int32, one for each pixel of the nested lists of the image
WIDE = 8 * PIXELS  # int64

STAGES = {
    "read from the file": "#0072B2",
    "copied": "#E69F00",
    "Arrow's offsets": "#CC79A7",
    "widened to int64": "#D55E00",
}
#: (stage, bytes written to memory) in their order.
WAYS = {
    "raw h5py, slabs": [("read from the file", PIXELS)],
    "skyset, rows or batches": [("read from the file", PIXELS)],
    "skyset, DataLoader worker": [("read from the file", PIXELS)],
    "stock hdf5 stream, rows": [
        ("read from the file", PIXELS),
        ("copied", PIXELS),
        ("Arrow's offsets", OFFSETS),
        ("copied", PIXELS),
        ("widened to int64", WIDE),
    ],
    "stock hdf5 stream, DataLoader worker": [
        ("read from the file", PIXELS),
        ("copied", PIXELS),
        ("Arrow's offsets", OFFSETS),
        ("copied", PIXELS),
        ("widened to int64", WIDE),
        ("copied", WIDE),
    ],
}


def figure() -> Figure:
    chart = Figure(figsize=(9, 3.4), layout="constrained")
    axes = chart.add_subplot()
    for place, stages in enumerate(reversed(WAYS.values())):
        start = 0.0
        for stage, size in stages:
            axes.barh(place, size / 1e6, left=start, color=STAGES[stage], edgecolor="white")
            start += size / 1e6
        axes.text(start + 0.3, place, f"{start:.1f} MB", va="center")
    axes.set_yticks(range(len(WAYS)), list(reversed(WAYS)))
    axes.set(xlabel="MB written to memory for one row of GZ3D", xlim=(0, 44))
    handles = [axes.barh(0, 0, color=colour, label=stage) for stage, colour in STAGES.items()]
    axes.legend(handles=handles, loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return chart


if __name__ == "__main__":
    target = Path(__file__).with_name("bytes.png")
    figure().savefig(target, dpi=110)
    print(f"wrote {target}")
