"""A notebook of one's own, written as the report reads it."""

import json


def write_notebook(path, *cells):
    """A notebook with a `run_dir` parameter and the given code cells."""
    sources = [('run_dir = ""', ["parameters"]), *((cell, []) for cell in cells)]
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": source}
        | {"execution_count": None, "outputs": []}
        for i, (source, tags) in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    path.write_text(json.dumps(notebook | {"nbformat_minor": 5}))
    return path
