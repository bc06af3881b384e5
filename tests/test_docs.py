"""The README says what the scripts measured: its tables are the ones that benchmarks/tables.py writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_readme_tables_are_generated():
    done = subprocess.run([sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "README.md differs from its figures; run python benchmarks/tables.py"


def test_readme_links_lead_somewhere():
    import re

    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"
