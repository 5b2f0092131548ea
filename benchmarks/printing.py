"""Prints the figures of the benchmark."""

from typing import Any

from benchmarks.peers import ROWS


def print_head(rows: list[str]) -> None:
    """Prints the heading of the training table."""
    print("\ntraining                 steps/s   of the limit (quartiles)", end="")
    print("   ours / this (quartiles)   MB   L_k at start, after" if rows else "")


def print_cell(cell: dict[str, Any]) -> None:
    """Prints a cell of the training table: a line for each row, and one for the limit."""
    print(f"B = {cell['batch']}, k = {cell['k']}")
    for row, line in cell["rows"].items():
        fraction = {"median": line["fraction"], "quartiles": line["fraction_quartiles"]}
        text = f"  {ROWS[row].label:22} {line['steps_per_s']:7.1f}   {shown(fraction)}"
        if len(cell["rows"]) > 1:
            bounds = f"{line['bound_at_start'][0]:.2f}, {line['bound_after'][0]:.2f}"
            text += f"          {shown(line['ours_over_this'])}          "
            text += f"{line['peak_memory_mb']:5.0f}   {bounds}"
        print(text)
    together = cell["fraction_of_together"]
    print(f"  {'the limit':22} {cell['limit_steps_per_s']:7.1f}", end="   ")
    print(f"(ours is {together:.2f} of products together)", flush=True)


def print_system(label: str, cell: dict[str, Any]) -> None:
    """Prints a model family: a line for each row."""
    print(f"\n{label}, B = {cell['batch']}, {cell['parameters']:,} parameters")
    for row, line in cell["rows"].items():
        losses = f"{-line['bound_at_start'][0]:.2f}, {-line['bound_after'][0]:.2f}"
        print(
            f"  {ROWS[row].label:22} {line['steps_per_s']:7.2f} steps/s   ours / this "
            f"{shown(line['ours_over_this'])}   {line['peak_memory_mb']:5.0f} MB   loss at start, "
            f"after {line['bound_after_steps']} steps: {losses}",
            flush=True,
        )


def print_mixtures(figures: dict[str, Any]) -> None:
    """Prints seconds of iterations of EM: a line for each row."""
    print(
        f"\n{figures['iterations']} iterations of EM, {figures['points']:,} points of "
        f"{figures['dims']} dimensions, {figures['components']} components"
    )
    for row, line in figures["rows"].items():
        print(
            f"  {ROWS[row].label:22} {line['seconds']:6.2f} s ({line['first_seconds']:.2f} s the "
            f"first time)   ours / this {shown(line['ours_over_this'])}   "
            f"{line['peak_memory_mb']:5.0f} MB   log p(x) at the start, reached: "
            f"{line['log_px_at_start']:.4f}, {line['log_px_reached']:.4f}",
            flush=True,
        )


def print_evaluate(figures: dict[str, Any]) -> None:
    """Prints images per second: a line for each row, and one for the limit."""
    head = f"L_{figures['draws']}"
    print(f"\n{head:34} images/s   of the limit   ours / this (quartiles)   value")
    for row, line in figures["rows"].items():
        print(
            f"  {ROWS[row].label:33} {line['images_per_s']:7.1f}   {line['fraction']:12.2f}"
            f"   {shown(line['ours_over_this'])}   {line['value']:.2f}"
        )
    print(f"  {'the limit':33} {figures['limit_images_per_s']:7.1f}")
    print(f"  temporary_bytes: {figures['temporary_bytes']}", flush=True)


def print_figures(title: str, figures: dict[str, float]) -> None:
    """Prints names and numbers."""
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name}: {value:.3g}", flush=True)


def shown(ratio: dict[str, Any]) -> str:
    """ "0.62 (0.60 0.65)": a median with its quartiles."""
    low, high = ratio["quartiles"]
    return f"{ratio['median']:.2f} ({low:.2f} {high:.2f})"


def print_replicates(cells: list[dict[str, Any]]) -> None:
    """Prints steps of a replicate per second: a line for each cell and R."""
    print("\nreplicates        R   steps/s   over R = 1 (quartiles)")
    for cell in cells:
        ratio = shown(cell["throughput_over_one"])
        print(
            f"B = {cell['batch']:3d}, k = {cell['k']:2d}  {cell['replicates']:2d} "
            f"{cell['replicate_steps_per_s']:9.1f}   {ratio}"
        )


def print_optimizers(cell: dict[str, Any]) -> None:
    """Prints a batch size: a line for each optimizer, and one for each part of SOAP's step."""
    head = f"optimizers, B = {cell['batch']}, k = {cell['k']}"
    print(f"\n{head:40} ms a step   over adam at B = 100   ms beyond sgd")
    for row, line in cell["rows"].items():
        beyond = shown(line["ms_beyond_gradient"])
        ratio = shown(line["over_reference"])
        print(f"  {ROWS[row].label:38} {line['ms']:9.2f}   {ratio:20}   {beyond}")
    for part, ms in cell["soap_ms"].items():
        print(f"  {f'soap: {part}, ms':38} {shown(ms)}", flush=True)
