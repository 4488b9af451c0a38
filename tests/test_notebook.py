"""examples/first_steps.ipynb is committed without outputs, and runs from top to bottom."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "first_steps.ipynb"


def test_the_notebook_has_no_outputs_and_links_that_lead_somewhere():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    assert any("load_runs" in text for text in code)
    assert any("%tensorboard" in text for text in code)
    for text in code:
        ast.parse(re.sub(r"^%.*$", "", text, flags=re.MULTILINE))
    for cell in cells:
        for target in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"])):
            assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's packages
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs rnnlstm[notebook]")
    pytest.importorskip("ipykernel", reason="needs rnnlstm[notebook]")
    import nbformat
    from tensorboard import manager

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where TensorBoard notes the servers that it started
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )  # %tensorboard starts what is there
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    try:
        client.execute()
    finally:  # TensorBoard ends with the kernel; if it has not
        for started in manager.get_all():
            os.kill(started.pid, signal.SIGTERM)
    assert len(list(tmp_path.glob("first_steps/*/*/seed_*/weights.pt"))) == 6
    (training,) = (cell for cell in notebook.cells if "rnnlstm.run(" in cell.source)
    # One line for each job, with its last state.
    rnn, lstm = (output["data"]["text/plain"] for output in training.outputs)
    assert re.fullmatch(r"\[1/2\] keyword, rnn: 500 of.* solved 0/3", rnn)
    assert re.fullmatch(r"\[2/2\] keyword, lstm: .* solved 3/3", lstm)
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in data for data in shown)
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert sum("<table" in page for page in pages) == 2
    assert any('id="tensorboard-frame-' in page for page in pages)
