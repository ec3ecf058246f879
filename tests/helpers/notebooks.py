"""Write a notebook out of a program of examples/ and what it prints.

`make notebook-NAME` runs this where jupytext, nbclient and what the program needs are installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "examples"
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read(name: str) -> Any:
    """Return a program as a notebook without outputs, the same each time."""
    import jupytext

    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata = {"kernelspec": _KERNEL}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return notebook


def execute(notebook: Any) -> None:
    """Run a notebook in the working directory; keep what it prints, without paths and times."""
    import nbclient

    nbclient.NotebookClient(notebook, timeout=None, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


if __name__ == "__main__":
    import nbformat

    made = read(sys.argv[1])
    execute(made)
    nbformat.write(made, FOLDER / f"{sys.argv[1]}.ipynb")
